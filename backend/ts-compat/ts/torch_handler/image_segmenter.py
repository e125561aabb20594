"""The built-in handler `image_segmenter`."""

from typing import Any

import torch

from ts.handler_utils.timer import timed
from ts.torch_handler.image_transforms import imagenet_transform
from ts.torch_handler.vision_handler import VisionHandler


class ImageSegmenter(VisionHandler):
    """Answers for each pixel its most probable class: rows of `[class number, probability]`.

    For models that answer as torchvision's do: `{"out": scores of each class and pixel}`.
    """

    image_processing = imagenet_transform()

    @timed
    def postprocess(self, data: Any) -> Any:
        scores = data["out"] if isinstance(data, dict) else data
        probability, number = torch.softmax(scores, dim=1).max(dim=1)
        return torch.stack([number.to(probability.dtype), probability], dim=-1).tolist()
