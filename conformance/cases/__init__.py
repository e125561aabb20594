"""The cases, a module per subject; each ends with its `SCENARIOS`."""
