"""The cases, a module per part of TorchServe's documents; each ends with its `SCENARIOS`."""
