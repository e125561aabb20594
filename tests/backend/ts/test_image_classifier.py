"""The built-in image classifier, from encoded images to labels."""

import base64
import io
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

torch = pytest.importorskip("torch")
Image = pytest.importorskip("PIL.Image")

from ts.context import Context, RequestProcessor  # noqa: E402
from ts.metrics.metric_cache_yaml_impl import MetricsCacheYamlImpl  # noqa: E402
from ts.torch_handler.image_classifier import ImageClassifier  # noqa: E402
from ts.utils.util import PredictionException  # noqa: E402

pytestmark = pytest.mark.torch


class Classes(torch.nn.Module):  # type: ignore[misc]
    """Scores ten classes by their number."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.arange(10.0).repeat(x.shape[0], 1)


@pytest.fixture
def context(tmp_path: Path) -> Context:
    torch.jit.script(Classes()).save(str(tmp_path / "w.pt"))
    manifest = {"model": {"serializedFile": "w.pt"}}
    metrics = MetricsCacheYamlImpl()
    return Context("m", str(tmp_path), manifest, 1, None, "0.12.0", metrics=metrics)


def png(mode: str = "RGB") -> bytes:
    buffer = io.BytesIO()
    Image.new(mode, (300, 260)).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture
def handler(context: Context) -> ImageClassifier:
    made = ImageClassifier()
    made.initialize(context)
    return made


@pytest.mark.parametrize("name", ["data", "body"])
def test_the_five_best_classes_come_first(
    handler: ImageClassifier, context: Context, name: str
) -> None:
    rows = [{name: bytearray(png())}, {name: base64.b64encode(png()).decode()}]
    answers = handler.handle(rows, context)
    assert [list(answer) for answer in answers] == [["9", "8", "7", "6", "5"]] * 2
    assert answers[0]["9"] == pytest.approx(0.632149, abs=1e-6)


def test_labels_and_the_number_of_classes(handler: ImageClassifier, context: Context) -> None:
    handler.mapping = {str(number): f"class {number}" for number in range(10)}
    handler.set_max_result_classes(2)
    assert handler.get_max_result_classes() == 2
    (answer,) = handler.handle([{"data": png()}], context)
    assert list(answer) == ["class 9", "class 8"]


def test_numbers_are_taken_as_they_are(handler: ImageClassifier) -> None:
    assert handler.preprocess([{"body": [[1.0, 2.0]]}]).tolist() == [[[1.0, 2.0]]]


@pytest.mark.parametrize("value", [b"", b"no image", None, {}], ids=repr)
def test_what_is_no_image_raises(handler: ImageClassifier, context: Context, value: Any) -> None:
    with pytest.raises(Exception):  # noqa: B017, PT011 - any exception is a 503
        handler.handle([{"data": value}], context)


@pytest.mark.parametrize("mode", ["L", "RGBA", "P"])
def test_images_that_are_not_rgb_raise_as_in_torchserve(
    handler: ImageClassifier, context: Context, mode: str
) -> None:
    with pytest.raises(RuntimeError):
        handler.handle([{"data": png(mode)}], context)


def test_the_pixel_limit_can_be_lifted(context: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 7)
    ImageClassifier().initialize(context)
    assert Image.MAX_IMAGE_PIXELS == 7
    context.system_properties["limit_max_image_pixels"] = False
    ImageClassifier().initialize(context)
    assert Image.MAX_IMAGE_PIXELS is None


@pytest.mark.parametrize("missing", ["captum", "captum.attr"])
def test_without_captum_an_explanation_says_what_to_install(
    handler: ImageClassifier, context: Context, monkeypatch: pytest.MonkeyPatch, missing: str
) -> None:
    monkeypatch.delitem(sys.modules, "captum.attr", raising=False)
    monkeypatch.setitem(sys.modules, missing, None)  # as good as not installed
    context.request_processor = [RequestProcessor({"explain": "True"})]
    with pytest.raises(PredictionException, match="need the package captum") as raised:
        handler.handle([{"data": png()}], context)
    assert raised.value.error_code == 503


def test_the_sample_is_what_preprocess_makes_of_an_image(handler: ImageClassifier) -> None:
    sample = handler._sample_input()
    usual = handler.preprocess([{"body": png()}])
    assert (sample.shape, sample.dtype) == (usual.shape, usual.dtype)
    assert torch.equal(sample, handler._sample_input())


def test_a_subclass_that_prepares_otherwise_has_no_sample() -> None:
    class Other(ImageClassifier):
        def preprocess(self, data: Any) -> Any:
            return data

    assert Other()._sample_input() is None


def test_explanations_are_captums_integrated_gradients(
    handler: ImageClassifier, context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    class IntegratedGradients:
        def __init__(self, model: Any) -> None:
            assert model is handler.model

        def attribute(self, tensor: Any, target: Any, n_steps: int) -> Any:
            return torch.full_like(tensor, float(target))

    fake = SimpleNamespace(IntegratedGradients=IntegratedGradients)
    monkeypatch.setitem(sys.modules, "captum", SimpleNamespace(attr=fake))
    monkeypatch.setitem(sys.modules, "captum.attr", fake)
    context.request_processor = [RequestProcessor({"explain": "True"})]
    (answer,) = handler.handle([{"data": png(), "target": 3}], context)
    assert torch.tensor(answer).shape == (3, 224, 224)
    assert answer[0][0][0] == 3.0
