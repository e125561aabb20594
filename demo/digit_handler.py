"""The handler of the demo: an image of a digit in, the digit and its probability out.

Written as for TorchServe, against `ts` alone, and packed into the archive.
"""

import io

import torch
from PIL import Image, UnidentifiedImageError

from ts.torch_handler.base_handler import BaseHandler
from ts.utils.util import PredictionException

SIDE = 8  # pixels; what the network was trained on


class DigitHandler(BaseHandler):
    """`initialize` and `inference` are BaseHandler's: model file, state dict, one batched call."""

    def preprocess(self, data: list[dict[str, bytes]]) -> torch.Tensor:
        # `curl -T digit.png` sends a plain body, `curl -F data=@digit.png` a form field.
        return torch.stack([_pixels(row.get("body") or row.get("data") or b"") for row in data])

    def postprocess(self, data: torch.Tensor) -> list[dict[str, float]]:
        best = data.softmax(dim=1).max(dim=1)
        return [
            {"digit": int(digit), "probability": round(float(probability), 4)}
            for digit, probability in zip(best.indices, best.values, strict=True)
        ]


def _pixels(image_bytes: bytes) -> torch.Tensor:
    try:
        image = Image.open(io.BytesIO(image_bytes)).convert("L")
    except UnidentifiedImageError as error:
        raise PredictionException("The request holds no image", 400) from error
    image = image.resize((SIDE, SIDE))
    levels = torch.frombuffer(bytearray(image.tobytes()), dtype=torch.uint8)
    return levels.reshape(1, SIDE, SIDE) / 255
