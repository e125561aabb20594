"""What the base handler loads, what it refuses, and what it does with a batch."""

import copy
import sys
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from ts.context import Context, RequestProcessor  # noqa: E402
from ts.metrics.caching_metric import Emission  # noqa: E402
from ts.metrics.metric_cache_yaml_impl import MetricsCacheYamlImpl  # noqa: E402
from ts.torch_handler.base_handler import BaseHandler  # noqa: E402

pytestmark = pytest.mark.torch

MODEL_SOURCE = """
import torch
class Doubler(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.factor = torch.nn.Parameter(torch.tensor(2.0))
        self.dropout = torch.nn.Dropout()
    def forward(self, x):
        return self.dropout(x * self.factor)
"""


class Doubler(torch.nn.Module):  # type: ignore[misc]
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * 2


def context_for(model_dir: Path, config: Any = None, **names: str) -> Context:
    return Context(
        "m",
        str(model_dir),
        {"model": names},
        1,
        None,
        "0.12.0",
        metrics=MetricsCacheYamlImpl(),
        model_yaml_config=config,
    )


@pytest.fixture
def eager(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Context:
    (tmp_path / "doubler_model.py").write_text(MODEL_SOURCE)
    torch.save({"factor": torch.tensor(3.0)}, tmp_path / "w.pth")
    monkeypatch.syspath_prepend(str(tmp_path))
    return context_for(tmp_path, modelFile="doubler_model.py", serializedFile="w.pth")


def test_an_eager_model_gets_its_state_dict_and_evaluates(eager: Context) -> None:
    handler = BaseHandler()
    handler.initialize(eager)
    assert handler.initialized
    assert not handler.model.training
    assert handler.handle([[1.0, 2.0]], eager) == [[3.0, 6.0]]


def test_an_eager_model_without_weights_keeps_its_own(eager: Context) -> None:
    assert eager.manifest is not None
    del eager.manifest["model"]["serializedFile"]
    handler = BaseHandler()
    handler.initialize(eager)
    assert handler.handle([1.0], eager) == [2.0]


def test_torchscript_is_loaded_by_its_suffix(tmp_path: Path) -> None:
    torch.jit.script(Doubler()).save(str(tmp_path / "w.pt"))
    context = context_for(tmp_path, serializedFile="w.pt")
    handler = BaseHandler()
    handler.initialize(context)
    assert handler.handle([4.0], context) == [8.0]


def test_labels_are_read(eager: Context, tmp_path: Path) -> None:
    (tmp_path / "index_to_name.json").write_text('{"0": "zero"}')
    handler = BaseHandler()
    handler.initialize(eager)
    assert handler.mapping == {"0": "zero"}


@pytest.mark.parametrize(
    ("names", "error", "text"),
    [
        ({}, AttributeError, "neither"),
        ({"serializedFile": "w.pth"}, RuntimeError, "No model weights could be loaded"),
        ({"serializedFile": "w.onnx"}, RuntimeError, "No model weights could be loaded"),
        ({"serializedFile": "w.so"}, RuntimeError, "No model weights could be loaded"),
        ({"modelFile": "none.py"}, RuntimeError, "Missing the none.py file"),
        ({"modelFile": "two_models.py"}, ValueError, "one class"),
        ({"serializedFile": "none.pt"}, (ValueError, RuntimeError), "none.pt"),
    ],
)
def test_what_cannot_be_loaded_raises(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    names: dict[str, str],
    error: type,
    text: str,
) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)  # as good as not installed
    (tmp_path / "two_models.py").write_text("class A: pass\nclass B: pass")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(error, match=text):
        BaseHandler().initialize(context_for(tmp_path, **names))


def test_without_manifest_the_load_fails(tmp_path: Path) -> None:
    with pytest.raises(TypeError):
        BaseHandler().initialize(Context("m", str(tmp_path), None, 1, None, "0"))


def test_a_state_dict_that_runs_code_is_refused(eager: Context, tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> Any:
            return print, ("pwned",)

    torch.save({"factor": Evil()}, tmp_path / "w.pth")
    with pytest.raises(Exception, match="reading it would run its code"):
        BaseHandler().initialize(eager)


@pytest.mark.parametrize(
    ("config", "is_compiled"),
    [
        ({}, False),
        ({"pt2": {"compile": {"enable": False}}}, False),
        ({"pt2": {"compile": {"enable": True, "backend": "eager"}}}, True),
        ({"pt2": "eager"}, True),
        ({"pt2": {"backend": "eager"}}, True),
        ({"pt2": "magic"}, False),
        ({"pt2": {"export": {"aot_compile": False}}}, False),
    ],
)
def test_the_model_is_compiled_where_configured(
    eager: Context, config: Any, is_compiled: bool
) -> None:
    eager.model_yaml_config = config
    handler = BaseHandler()
    handler.initialize(eager)
    assert hasattr(handler.model, "_orig_mod") is is_compiled


def test_the_context_knows_the_handler_and_its_copies_do_too(eager: Context) -> None:
    handler = BaseHandler()
    handler.initialize(eager)
    assert eager.base_handler is not None
    assert eager.base_handler() is handler
    assert handler._loaded_model is handler.model
    # A copy of the context must not copy the model.
    assert copy.deepcopy(eager).base_handler() is handler


def test_a_model_that_a_subclass_loads_is_not_known(eager: Context) -> None:
    class Own(BaseHandler):
        def _load_pickled_model(self, *_: Any) -> Any:
            return Doubler()

    handler = Own()
    handler.initialize(eager)
    assert handler._loaded_model is None


def test_handler_time_is_recorded(eager: Context) -> None:
    emissions: list[Emission] = []
    eager.metrics = MetricsCacheYamlImpl(sink=emissions.append)
    eager.metrics.initialize_cache()
    eager.metrics.set_request_ids({0: "r"})
    handler = BaseHandler()
    handler.initialize(eager)
    handler.handle([1.0], eager)
    assert [(one.name, one.unit, one.request_id) for one in emissions] == [
        ("HandlerTime", "Milliseconds", "r")
    ]


class Explaining(BaseHandler):
    def preprocess(self, data: Any) -> Any:
        return [row["body"] for row in data]

    def get_insights(self, data_preprocess: Any, inputs: Any, target: Any) -> Any:
        return [data_preprocess, inputs, target]

    def describe_handle(self) -> Any:
        return "described"


def test_an_explain_header_asks_for_insights(eager: Context) -> None:
    handler = Explaining()
    handler.initialize(eager)
    eager.request_processor = [RequestProcessor({"explain": "True"})]
    assert handler.handle([{"body": 1.0}], eager) == [[1.0], 1.0, 0]
    assert handler.handle([{"body": 1.0, "target": 7}], eager) == [[1.0], 1.0, 7]


def test_a_describe_header_asks_for_a_description(eager: Context) -> None:
    handler = Explaining()
    handler.initialize(eager)
    eager.request_processor = [RequestProcessor({"describe": "True"})]
    assert handler.handle([{"body": 1.0}], eager) == ["described"]


def test_inference_records_no_gradients(eager: Context) -> None:
    handler = BaseHandler()
    handler.initialize(eager)
    assert handler.inference(torch.ones(2)).is_inference()


def test_the_profiler_runs_when_the_environment_asks(
    eager: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ENABLE_TORCH_PROFILER", "1")
    profiles: list[Any] = []
    handler = BaseHandler()
    handler.initialize(eager)
    handler.profiler_args = {
        "activities": [torch.profiler.ProfilerActivity.CPU],
        "on_trace_ready": profiles.append,
    }
    assert handler.handle([1.0], eager) == [3.0]
    assert len(profiles) == 1
