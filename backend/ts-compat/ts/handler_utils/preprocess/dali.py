"""Not offered: importing it says what to use instead."""

raise ImportError(
    "ts.handler_utils.preprocess.dali needs NVIDIA's DALI and a GPU, and Torchkeep serves on CPUs: "
    "preprocess with torchvision, as ts.torch_handler.vision_handler.VisionHandler does"
)
