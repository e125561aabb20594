"""The built-in handler `object_detector`."""

from typing import Any

import torch

from ts.handler_utils.timer import timed
from ts.torch_handler.image_transforms import tensor_transform
from ts.torch_handler.vision_handler import VisionHandler


class ObjectDetector(VisionHandler):
    """Answers what is in the picture, and where: `[{label: [x1, y1, x2, y2], "score": s}]`.

    For torchvision's detection models, which take pictures of any size.
    """

    threshold = 0.5  # less certain finds are left out
    image_processing = tensor_transform()

    @timed
    def preprocess(self, data: Any) -> Any:
        """One tensor for pictures of one size, a list of tensors where sizes differ."""
        images = [self._image(row.get("data") or row.get("body")) for row in data]
        if len({image.shape for image in images}) == 1:
            return torch.stack(images).to(self.device)
        return [image.to(self.device) for image in images]

    @timed
    def inference(self, data: Any, *args: Any, **kwargs: Any) -> Any:
        with torch.inference_mode():
            # As TorchScript the models answer (losses, detections).
            output = self.model(list(data), *args, **kwargs)
        return output[1] if isinstance(output, tuple) else output

    @timed
    def postprocess(self, data: Any) -> list[list[dict[str, Any]]]:
        return [self._finds(one) for one in data]

    def _finds(self, detections: dict[str, Any]) -> list[dict[str, Any]]:
        is_certain = detections["scores"] >= self.threshold
        columns = (detections[name][is_certain].tolist() for name in ("labels", "boxes", "scores"))
        return [
            {self._label(number): box, "score": score}
            for number, box, score in zip(*columns, strict=True)
        ]

    def _label(self, number: int) -> str:
        return str(number) if self.mapping is None else self.mapping[str(number)]
