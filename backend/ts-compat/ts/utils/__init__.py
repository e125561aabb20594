"""Small helpers that handlers import by name."""
