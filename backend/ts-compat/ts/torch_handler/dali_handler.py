"""Not offered: importing it says what to use instead."""

raise ImportError(
    "ts.torch_handler.dali_handler needs NVIDIA's DALI and a GPU, and Torchkeep serves on "
    "CPUs: derive from ts.torch_handler.vision_handler.VisionHandler instead"
)
