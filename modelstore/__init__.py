"""Archives at rest: open, check, unpack, write, seal."""
