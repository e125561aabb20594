"""A context, and a directory with a model, for tests of handlers."""
