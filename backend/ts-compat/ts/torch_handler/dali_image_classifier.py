"""Not offered: importing it says what to use instead."""

raise ImportError(
    "the handler dali_image_classifier needs NVIDIA's DALI and a GPU, and Torchkeep serves"
    " on CPUs: use the handler image_classifier, which takes the same model and pictures"
)
