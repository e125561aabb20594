"""Packing workflows from Python, by TorchServe's names."""
