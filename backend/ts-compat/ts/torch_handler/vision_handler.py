"""The base of handlers whose input is an image."""

import base64
import importlib
import io
import random
from abc import ABC
from typing import Any

import torch
from PIL import Image

from ts.context import Context
from ts.handler_utils.timer import timed
from ts.torch_handler.base_handler import BaseHandler
from ts.utils.util import PredictionException

EXPLANATION_STEPS = 15  # of captum's integral
SAMPLE_SIDE = 256  # pixels of the image that stands for a request before there is any


class VisionHandler(BaseHandler, ABC):
    """One image per request, one row per image; subclasses bring `image_processing`."""

    image_processing: Any

    def initialize(self, context: Context) -> None:
        super().initialize(context)
        if not context.system_properties.get("limit_max_image_pixels", True):
            Image.MAX_IMAGE_PIXELS = None

    @timed
    def preprocess(self, data: Any) -> Any:
        """Encoded bytes, their base64 text, or numbers: stacked to one tensor on the device."""
        images = [self._image(row.get("data") or row.get("body")) for row in data]
        return torch.stack(images).to(self.device)

    def get_insights(self, tensor_data: Any, _: Any, target: Any = 0) -> Any:
        """captum's integrated gradients: how much each input value spoke for `target`."""
        captum = _captum()
        gradients = captum.IntegratedGradients(self.model)
        return gradients.attribute(tensor_data, target=target, n_steps=EXPLANATION_STEPS).tolist()

    def _sample_input(self) -> Any:
        """What `preprocess` makes of one image; None where a subclass prepares otherwise."""
        if type(self).preprocess is not VisionHandler.preprocess:
            return None
        noise = random.Random(0).randbytes(3 * SAMPLE_SIDE**2)
        image = Image.frombytes("RGB", (SAMPLE_SIDE, SAMPLE_SIDE), noise)
        return torch.stack([self.image_processing(image)]).to(self.device)

    def _image(self, value: Any) -> Any:
        if isinstance(value, str):
            value = base64.b64decode(value)
        if isinstance(value, bytes | bytearray):
            return self.image_processing(Image.open(io.BytesIO(value)))
        return torch.FloatTensor(value)


def _captum() -> Any:
    """Only explanations need it, so handlers load without it, unlike TorchServe's."""
    try:
        return importlib.import_module("captum.attr")
    except ImportError as error:
        raise no_captum("image", f" ({error})") from error


def no_captum(kind: str, reason: str = "") -> PredictionException:
    """What an explanation is answered where the package is missing."""
    return PredictionException(
        f"Explanations of {kind} models need the package captum{reason}. Install it where"
        " the server is installed, or let the handler bring its own get_insights.",
        503,
    )
