"""The built-in handlers on their own: whole batches, and what system tests do not reach.

What they answer is compared with the real TorchServe's answers in tests/system/test_facts.py.
"""

import importlib
import io
import json
import os
import sys
import warnings
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
Image = pytest.importorskip("PIL.Image")

from conformance.weights import VOCABULARY  # noqa: E402
from ts.context import Context, RequestProcessor  # noqa: E402
from ts.metrics.metric_cache_yaml_impl import MetricsCacheYamlImpl  # noqa: E402
from ts.torch_handler.base_handler import BaseHandler  # noqa: E402
from ts.torch_handler.densenet_handler import DenseNetHandler  # noqa: E402
from ts.torch_handler.image_segmenter import ImageSegmenter  # noqa: E402
from ts.torch_handler.object_detector import ObjectDetector  # noqa: E402
from ts.torch_handler.text_classifier import TextClassifier  # noqa: E402
from ts.utils.util import PredictionException  # noqa: E402

pytestmark = pytest.mark.torch

TEXT_MODEL = """
import torch
class TextModel(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding = torch.nn.EmbeddingBag(40, 8)
        self.classes = torch.nn.Linear(8, 3)
    def forward(self, text, offsets):
        return self.classes(self.embedding(text, offsets))
"""


def context_for(model_dir: Path, config: Any = None, **names: str) -> Context:
    metrics = MetricsCacheYamlImpl()
    manifest = {"model": names}
    return Context(
        "m", str(model_dir), manifest, 2, None, "0", metrics=metrics, model_yaml_config=config
    )


def png(width: int, height: int, colour: str = "red") -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (width, height), colour).save(buffer, "PNG")
    return buffer.getvalue()


class Finds(torch.nn.Module):  # type: ignore[misc]
    """Finds in each picture its corner and, less certainly, its size."""

    def forward(self, pictures: list[torch.Tensor]) -> list[dict[str, torch.Tensor]]:
        found: list[dict[str, torch.Tensor]] = []
        for picture in pictures:
            height, width = float(picture.shape[1]), float(picture.shape[2])
            found.append(
                {
                    "boxes": torch.tensor([[0.0, 0.0, 1.0, 1.0], [0.0, 0.0, width, height]]),
                    "labels": torch.tensor([1, 2]),
                    "scores": torch.tensor([0.4999, 0.5]),
                }
            )
        return found


@pytest.fixture
def detector(tmp_path: Path) -> tuple[ObjectDetector, Context]:
    torch.jit.script(Finds()).save(str(tmp_path / "w.pt"))
    context = context_for(tmp_path, serializedFile="w.pt")
    handler = ObjectDetector()
    handler.initialize(context)
    return handler, context


@pytest.mark.parametrize("sizes", [[(20, 10)], [(20, 10), (20, 10)]])
def test_certain_finds_are_answered(
    detector: tuple[ObjectDetector, Context], sizes: list[tuple[int, int]]
) -> None:
    handler, context = detector
    answers = handler.handle([{"data": png(*size)} for size in sizes], context)
    assert answers == [[{"2": [0, 0, width, height], "score": 0.5}] for width, height in sizes]


def test_pictures_of_two_sizes_are_one_batch(detector: tuple[ObjectDetector, Context]) -> None:
    handler, context = detector
    handler.mapping = {"1": "cat", "2": "dog"}
    handler.threshold = 0.0
    answers = handler.handle([{"data": png(20, 10)}, {"body": png(30, 40)}], context)
    assert [answer[1]["dog"] for answer in answers] == [[0, 0, 20, 10], [0, 0, 30, 40]]
    assert [next(iter(answer[0])) for answer in answers] == ["cat", "cat"]


class Segments(torch.nn.Module):  # type: ignore[misc]
    def forward(self, pictures: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"out": pictures[:, :2] * 10.0}


def test_each_pixel_gets_a_class_and_its_probability(tmp_path: Path) -> None:
    torch.jit.script(Segments()).save(str(tmp_path / "w.pt"))
    context = context_for(tmp_path, serializedFile="w.pt")
    handler = ImageSegmenter()
    handler.initialize(context)
    rows = [{"data": png(300, 260, colour)} for colour in ("red", "lime")]
    red, green = handler.handle(rows, context)
    assert torch.tensor(red).shape == (224, 224, 2)
    assert (red[0][0][0], green[0][0][0]) == (0.0, 1.0)
    assert red[0][0][1] == pytest.approx(1.0, abs=1e-3)


@pytest.fixture
def texts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[TextClassifier, Context]:
    (tmp_path / "own_text_model.py").write_text(TEXT_MODEL)
    torch.save(VOCABULARY, tmp_path / "source_vocab.pt")
    monkeypatch.syspath_prepend(str(tmp_path))
    torch.manual_seed(0)
    context = context_for(tmp_path, modelFile="own_text_model.py")
    handler = TextClassifier()
    handler.initialize(context)
    return handler, context


def test_a_batch_of_texts_is_answered_as_each_text_alone(
    texts: tuple[TextClassifier, Context],
) -> None:
    handler, context = texts
    rows = [{"data": "It was great!"}, {"body": b"don't stop"}, {"data": "5 stars"}]
    together = handler.handle(rows, context)
    alone = [handler.handle([row], context)[0] for row in rows]
    assert [list(answer) for answer in together] == [["0", "1", "2"]] * 3
    for one, other in zip(together, alone, strict=True):
        assert list(one.values()) == pytest.approx(list(other.values()))


def test_what_is_prepared_of_one_text_is_a_pair(texts: tuple[TextClassifier, Context]) -> None:
    numbers, words = texts[0].preprocess([{"data": "It was great"}])
    assert (len(numbers), words) == (5, ["it", "was", "great"])
    # Subclasses that prepare a text themselves return such a pair.
    assert texts[0].inference((numbers, words)).shape == (1, 3)


def test_texts_without_captum_say_what_to_install(
    texts: tuple[TextClassifier, Context],
) -> None:
    handler, context = texts
    handler.lig = None
    context.request_processor = [RequestProcessor({"explain": "True"})]
    with pytest.raises(PredictionException, match="text models need the package captum"):
        handler.handle([{"data": "stop"}], context)


def test_a_batch_of_texts_is_explained(texts: tuple[TextClassifier, Context]) -> None:
    pytest.importorskip("captum.attr")
    handler, context = texts
    context.request_processor = [RequestProcessor({"explain": "True"})] * 2
    first, second = handler.handle([{"data": "it was great"}, {"data": "stop"}], context)
    assert (first["words"], second["words"]) == (["it", "was", "great"], ["stop"])
    assert sum(first["importances"][0]) == pytest.approx(1.0)


@pytest.mark.parametrize(("file", "error"), [("source_vocab.pt", FileNotFoundError)])
def test_a_text_handler_needs_its_vocabulary(
    texts: tuple[TextClassifier, Context], tmp_path: Path, file: str, error: type
) -> None:
    (tmp_path / file).unlink()
    with pytest.raises(error, match=file):
        TextClassifier().initialize(texts[1])


def test_tensors_go_in_and_out(tmp_path: Path) -> None:
    model = torch.jit.script(torch.nn.Sequential(torch.nn.Linear(4, 2)))
    model.save(str(tmp_path / "w.pt"))
    context = context_for(tmp_path, serializedFile="w.pt")
    handler = DenseNetHandler()
    handler.initialize(context)
    rows = []
    for value in (1.0, 2.0):
        buffer = io.BytesIO()
        torch.save(torch.full((4,), value), buffer)
        rows.append({"body": bytearray(buffer.getvalue())})
    answers = handler.handle(rows, context)
    assert [answer.shape for answer in answers] == [(1, 2), (1, 2)]


def test_safetensors_stand_in_for_a_state_dict(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = "from torch import nn\nclass Doubled(nn.Linear):\n"
    source += "    def __init__(self):\n        super().__init__(1, 1)\n"
    (tmp_path / "doubled.py").write_text(source)
    header = {
        "weight": {"dtype": "F32", "shape": [1, 1], "data_offsets": [0, 4]},
        "bias": {"dtype": "F32", "shape": [1], "data_offsets": [4, 8]},
    }
    text = json.dumps(header).encode()
    data = torch.tensor([2.0, 1.0]).numpy().tobytes()
    (tmp_path / "w.safetensors").write_bytes(len(text).to_bytes(8, "little") + text + data)
    monkeypatch.syspath_prepend(str(tmp_path))
    context = context_for(tmp_path, modelFile="doubled.py", serializedFile="w.safetensors")
    handler = BaseHandler()
    handler.initialize(context)
    assert handler.handle([[3.0]], context) == [[7.0]]


@pytest.mark.parametrize(
    ("file", "reason"),
    [
        ("w.safetensors", "name the file of their class"),
        ("w.so", r"pt2: \{export: \{aot_compile: true\}\}"),
        ("w.pth", r"it must be \.pt"),
    ],
)
def test_a_file_that_cannot_be_a_model_says_why(tmp_path: Path, file: str, reason: str) -> None:
    with pytest.raises(RuntimeError, match=f"No model weights could be loaded: {file}: .*{reason}"):
        BaseHandler().initialize(context_for(tmp_path, serializedFile=file))


def test_an_exported_program_is_loaded(tmp_path: Path) -> None:
    program = torch.export.export(torch.nn.Linear(2, 1).eval(), (torch.ones(1, 2),))
    torch.export.save(program, tmp_path / "w.pt2")
    context = context_for(tmp_path, serializedFile="w.pt2")
    handler = BaseHandler()
    handler.initialize(context)
    assert torch.tensor(handler.handle([[1.0, 2.0]], context)).shape == (1, 1)


@pytest.mark.long
@pytest.mark.parametrize("suffix", [".pt2", ".so"])
def test_a_compiled_model_is_loaded(tmp_path: Path, suffix: str) -> None:
    inductor = importlib.import_module("torch._inductor.config")
    torch.manual_seed(0)
    layer, given = torch.nn.Linear(2, 1).eval(), torch.tensor([[1.0, 2.0]])
    program = torch.export.export(layer, (given,))
    path = str(tmp_path / f"w{suffix}")
    with inductor.patch(compile_threads=1), warnings.catch_warnings():  # no helper stays behind
        warnings.simplefilter("ignore")
        if suffix == ".pt2":
            torch._inductor.aoti_compile_and_package(program, package_path=path)
        else:
            options = {"aot_inductor.output_path": path}
            torch._export.aot_compile(layer, (given,), options=options)
    config = {"pt2": {"export": {"aot_compile": True}}}
    context = context_for(tmp_path, config, serializedFile=f"w{suffix}")
    handler = BaseHandler()
    handler.initialize(context)
    answer = handler.handle(given.tolist(), context)
    assert answer[0] == pytest.approx(layer(given).tolist()[0])


def test_an_onnx_model_answers_as_the_model_it_was_made_of(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
    pytest.importorskip("onnx", reason="onnx is not installed")
    layer, given = torch.nn.Linear(2, 1).eval(), torch.tensor([[1.0, 2.0]])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # there will be another exporter
        torch.onnx.export(layer, (given,), str(tmp_path / "w.onnx"), dynamo=False)
    context = context_for(tmp_path, serializedFile="w.onnx")
    handler = BaseHandler()
    handler.initialize(context)
    assert handler.handle(given.tolist(), context)[0] == pytest.approx(layer(given).tolist()[0])
    with pytest.raises(ValueError, match="2 inputs were prepared"):
        handler.inference([given, given])


@pytest.mark.parametrize(
    ("module", "instead"),
    [
        ("dali_handler", "VisionHandler"),
        ("dali_image_classifier", "image_classifier"),
        ("vllm_handler", "transformers"),
        ("trt_llm_handler", "transformers"),
    ],
)
def test_a_handler_that_is_not_offered_says_what_to_use(module: str, instead: str) -> None:
    with pytest.raises(ImportError, match=instead):
        importlib.import_module(f"ts.torch_handler.{module}")


def test_where_traces_cannot_be_written_the_profiler_runs_without(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise PermissionError("no")

    torch.jit.script(torch.nn.Sequential(torch.nn.Linear(1, 1))).save(str(tmp_path / "w.pt"))
    context = context_for(tmp_path, serializedFile="w.pt")
    handler = BaseHandler()
    handler.initialize(context)
    monkeypatch.setenv("ENABLE_TORCH_PROFILER", "1")
    monkeypatch.setattr(os, "makedirs", refuse)
    assert len(handler.handle([[1.0]], context)) == 1
    assert "no trace is kept" in caplog.text


def test_distributed_helpers_that_are_not_offered_say_what_to_use(tmp_path: Path) -> None:
    from ts.handler_utils.distributed.deepspeed import get_ds_engine
    from ts.handler_utils.distributed.pt_pippy import get_pipeline_driver

    with pytest.raises(ImportError, match="pipelining"):
        get_pipeline_driver(None, 1, context_for(tmp_path))
    with pytest.raises(ValueError, match="deepspeed"):
        get_ds_engine(None, context_for(tmp_path))
    config = {"deepspeed": {"config": "ds.json"}, "handler": {"model_path": "."}}
    assert "deepspeed" not in sys.modules
    with pytest.raises(ImportError, match="requirements"):
        get_ds_engine(None, context_for(tmp_path, config))


def test_a_deepspeed_handler_knows_its_device(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ts.torch_handler.distributed.base_deepspeed_handler import BaseDeepSpeedHandler

    class Own(BaseDeepSpeedHandler):
        pass

    monkeypatch.setenv("LOCAL_RANK", "3")
    handler = Own()
    handler.initialize(context_for(tmp_path))
    assert handler.get_device() == 3
