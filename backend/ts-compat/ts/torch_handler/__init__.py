"""The handlers that an archive can name instead of bringing its own."""
