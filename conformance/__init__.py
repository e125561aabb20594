"""Torchkeep beside the real TorchServe: the same requests to both, every difference shown."""
