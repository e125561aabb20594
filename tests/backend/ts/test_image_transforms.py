"""The Pillow path against torchvision: the same pixels, the same failures."""

import sys
from typing import Any

import pytest

torch = pytest.importorskip("torch")
Image = pytest.importorskip("PIL.Image")

from ts.torch_handler.image_transforms import PillowTransform, imagenet_transform  # noqa: E402

pytestmark = pytest.mark.torch

_SIDES = (1, 3, 28, 224, 225, 255, 256, 257, 341, 640)
# Beyond this ratio the resized image would be huge.
SIZES = [(width, height) for width in _SIDES for height in _SIDES if width <= 90 * height]
SIZES = [(width, height) for width, height in SIZES if height <= 90 * width]


def noise(mode: str, width: int, height: int) -> Any:
    if mode in ("I", "I;16", "F", "1"):
        return Image.effect_noise((width, height), 90).convert(mode)
    bands = [Image.effect_noise((width, height), 90) for _ in Image.new(mode, (1, 1)).getbands()]
    return Image.merge(mode, bands)


@pytest.fixture
def torchvision_transform() -> Any:
    pytest.importorskip("torchvision")
    transform = imagenet_transform()
    assert not isinstance(transform, PillowTransform)
    return transform


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_every_size_gives_the_same_tensor(
    size: tuple[int, int], torchvision_transform: Any
) -> None:
    width, height = size
    image = noise("RGB", width, height)
    expected = torchvision_transform(image)
    assert expected.shape == (3, 224, 224)
    assert torch.equal(PillowTransform()(image), expected)


def test_an_image_of_the_final_size_is_not_resized(torchvision_transform: Any) -> None:
    image = noise("RGB", 256, 256)
    assert torch.equal(PillowTransform()(image), torchvision_transform(image))


@pytest.mark.parametrize("mode", ["YCbCr", "HSV", "LAB"])
def test_other_modes_of_three_bands_give_the_same_tensor(
    mode: str, torchvision_transform: Any
) -> None:
    image = noise(mode, 300, 400)
    assert torch.equal(PillowTransform()(image), torchvision_transform(image))


@pytest.mark.parametrize("mode", ["L", "LA", "RGBA", "CMYK", "P", "1", "I", "I;16", "F"])
def test_images_without_three_channels_fail_in_both(mode: str, torchvision_transform: Any) -> None:
    image = (
        noise("RGB", 300, 400).quantize(16)
        if mode == "P"
        else noise("L", 300, 400).convert("I").convert(mode)
        if mode == "I;16"
        else noise(mode, 300, 400)
    )
    assert image.mode == mode
    for transform in (PillowTransform(), torchvision_transform):
        with pytest.raises((RuntimeError, TypeError)):
            transform(image)


def test_without_torchvision_pillow_takes_over(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torchvision", None)
    assert isinstance(imagenet_transform(), PillowTransform)
