"""The built-in handler `image_classifier`."""

from typing import Any

import torch

from ts.handler_utils.timer import timed
from ts.torch_handler.image_transforms import imagenet_transform
from ts.torch_handler.vision_handler import VisionHandler
from ts.utils.util import map_class_to_label


class ImageClassifier(VisionHandler):
    """Answers the most probable classes, best first: `{label: probability}`."""

    topk = 5
    image_processing = imagenet_transform()

    def set_max_result_classes(self, topk: int) -> None:
        self.topk = topk

    def get_max_result_classes(self) -> int:
        return self.topk

    @timed
    def postprocess(self, data: Any) -> Any:
        probabilities = torch.nn.functional.softmax(data, dim=1)
        best, classes = torch.topk(probabilities, self.topk, dim=1)
        return map_class_to_label(best.tolist(), self.mapping, classes.tolist())
