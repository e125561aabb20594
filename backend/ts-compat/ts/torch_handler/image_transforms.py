"""ImageNet preprocessing without torchvision, equal to torchvision's in every pixel.

`torchvision.transforms` hands PIL images to Pillow for resizing and cropping, so the same
Pillow calls with the same rounding give the same result. Images that are not RGB fail in
the last step there, and here as well: a handler that wants them converts them itself.
"""

from importlib import import_module
from typing import Any

import torch

RESIZE_SHORT_SIDE = 256
CROP_SIDE = 224
MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)


def imagenet_transform() -> Any:
    """A callable from PIL image to normalized tensor: torchvision's where it imports."""
    transforms = _torchvision_transforms()
    if transforms is None:
        return PillowTransform()
    return transforms.Compose(
        [
            transforms.Resize(RESIZE_SHORT_SIDE),
            transforms.CenterCrop(CROP_SIDE),
            transforms.ToTensor(),
            transforms.Normalize(MEAN, STD),
        ]
    )


def tensor_transform() -> Any:
    """A callable from PIL image to a tensor of its size, with numbers from 0 to 1."""
    transforms = _torchvision_transforms()
    return PillowToTensor() if transforms is None else transforms.Compose([transforms.ToTensor()])


class PillowToTensor:
    """ToTensor, by Pillow and torch alone."""

    def __call__(self, image: Any) -> Any:
        return _to_tensor(image)


class PillowTransform:
    """Resize(256), CenterCrop(224), ToTensor and Normalize, by Pillow and torch alone."""

    def __call__(self, image: Any) -> Any:
        return _normalize(_to_tensor(_center_crop(_resize(image))))


def _torchvision_transforms() -> Any:
    try:
        # By name: it ships no types, which would be an error in every handler's own check.
        return import_module("torchvision").transforms
    # A torchvision built for another torch fails with RuntimeError or OSError.
    except (ImportError, RuntimeError, OSError):
        return None


def _resize(image: Any) -> Any:
    from PIL import Image

    width, height = image.size
    short, long = sorted((width, height))
    new_long = int(RESIZE_SHORT_SIDE * long / short)
    size = (RESIZE_SHORT_SIDE, new_long) if width <= height else (new_long, RESIZE_SHORT_SIDE)
    return image if size == image.size else image.resize(size, Image.Resampling.BILINEAR)


def _center_crop(image: Any) -> Any:
    width, height = image.size
    # round() to even, as torchvision does: 0.5 goes down, 1.5 goes up.
    left, top = round((width - CROP_SIDE) / 2.0), round((height - CROP_SIDE) / 2.0)
    return image.crop((left, top, left + CROP_SIDE, top + CROP_SIDE))


def _to_tensor(image: Any) -> Any:
    # One bit, integers and floats: torchvision's tensors of those fail in Normalize.
    if image.mode in ("1", "F") or image.mode.startswith("I"):
        raise TypeError(f"an image of mode {image.mode} has no channels of bytes")
    bands = len(image.getbands())
    pixels = torch.frombuffer(bytearray(image.tobytes()), dtype=torch.uint8)
    channels_last = pixels.view(image.size[1], image.size[0], bands)
    return channels_last.permute(2, 0, 1).contiguous().to(torch.get_default_dtype()).div(255)


def _normalize(tensor: Any) -> Any:
    mean = torch.tensor(MEAN, dtype=tensor.dtype).view(-1, 1, 1)
    std = torch.tensor(STD, dtype=tensor.dtype).view(-1, 1, 1)
    # In place, so that a tensor with any other number of channels is an error.
    return tensor.sub_(mean).div_(std)
