"""Metrics that a handler records through `context.metrics`."""
