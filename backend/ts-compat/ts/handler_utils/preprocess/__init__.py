"""Where TorchServe keeps its pipelines of NVIDIA's DALI."""
