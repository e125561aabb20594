"""What tests of handlers use."""
