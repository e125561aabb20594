"""What a worker does before it is ready: requests and shapes, and what may go wrong with them."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from torchkeep.backend import contest  # noqa: E402
from torchkeep.backend.guard import Guard  # noqa: E402
from torchkeep.backend.service import LoadFailed, Service  # noqa: E402
from torchkeep.runtime.messages import (  # noqa: E402
    InputParameter,
    InputShape,
    Load,
    RequestInput,
)

pytestmark = pytest.mark.torch

MODEL = """
import torch
class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(4, 2)
    def forward(self, x):
        return self.layer(x)
"""

HANDLER = """
import torch
from ts.torch_handler.base_handler import BaseHandler
class Rows(BaseHandler):
    seen = []
    def initialize(self, context):
        super().initialize(context)
        type(self).last = self
    def preprocess(self, data):
        self.seen.append([row["body"] for row in data])
        return torch.tensor([row["body"] for row in data])
"""

Loader = Callable[..., Service]


@pytest.fixture(autouse=True)
def _any_form_wins(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(contest, "MIN_GAIN", 1e9)
    monkeypatch.setattr(contest, "TIMED_ROUNDS", (1, 1))


@pytest.fixture
def load(tmp_path: Path, request: pytest.FixtureRequest) -> Loader:
    """Loads an eager model with a handler of this source, as a worker does."""
    name = f"rows_{abs(hash(request.node.name))}"

    def load_one(handler: str = HANDLER, model: str = MODEL, **changes: Any) -> Service:
        (tmp_path / f"{name}.py").write_text(handler)
        (tmp_path / f"{name}_net.py").write_text(model)
        (tmp_path / "index_to_name.json").write_text("{}")
        (tmp_path / "row.json").write_text("[1.0, 2.0, 3.0, 4.0]")
        (tmp_path / "MAR-INF").mkdir()
        manifest = {"model": {"modelName": "m", "modelFile": f"{name}_net.py"}}
        (tmp_path / "MAR-INF/MANIFEST.json").write_text(json.dumps(manifest))
        fields: dict[str, Any] = {
            "model_name": "m",
            "model_version": "1.0",
            "model_dir": str(tmp_path),
            "handler": f"{name}.py",
            "envelope": "",
            "batch_size": 4,
            "limit_max_image_pixels": True,
            "decode_input_request": True,
            "environment": {},
            "engine": "torch",
        }
        return Service.load(Load(**{**fields, **changes}))

    return load_one


def handler_of(service: Service) -> Any:
    return service._entry_point.__self__  # type: ignore[attr-defined]


def is_optimised(service: Service) -> bool:
    return isinstance(vars(handler_of(service).model).get("forward"), Guard)


def ask(service: Service) -> tuple[int, Any]:
    parameter = InputParameter("body", b"[1, 2, 3, 4.5]", "application/json")
    reply = service.predict([RequestInput("r", {}, [parameter])])
    return reply.status, reply.items[0].body


SHAPE = [InputShape([1, 4], "float32")]


def test_a_request_of_the_archive_is_answered_before_any_other(
    load: Loader, capsys: pytest.CaptureFixture[str]
) -> None:
    service = load(warm_up_file="row.json")
    assert handler_of(service).seen == [[[1.0, 2.0, 3.0, 4.0]]] * 4
    assert is_optimised(service)
    assert service.engine.startswith("torch, float32, traced")
    assert f"engine: {service.engine}\n" in capsys.readouterr().out
    assert ask(service)[0] == 200


def test_metrics_of_the_warm_up_are_nobodys(load: Loader) -> None:
    service = load(warm_up_file="row.json")
    parameter = InputParameter("body", b"[1, 2, 3, 4.5]", "application/json")
    reply = service.predict([RequestInput("r", {}, [parameter])])
    assert sorted(metric.name for metric in reply.metrics) == ["HandlerTime", "PredictionTime"]
    assert {metric.request_id for metric in reply.metrics} == {"r"}


def test_a_shape_calls_the_model_alone(load: Loader) -> None:
    service = load(warm_up_inputs=SHAPE)
    assert handler_of(service).seen == []
    assert is_optimised(service)
    status, body = ask(service)
    assert status == 200
    expected = handler_of(service).model.layer(torch.tensor([1, 2, 3, 4.5]))
    assert json.loads(bytes(body)) == pytest.approx(expected.tolist(), abs=1e-5)


def test_without_a_warm_up_nothing_is_known(load: Loader) -> None:
    service = load()
    assert not is_optimised(service)
    assert service.engine.startswith("eager: what it takes is unknown")


def test_a_shape_that_does_not_fit_is_said_and_changes_nothing(
    load: Loader, caplog: pytest.LogCaptureFixture
) -> None:
    service = load(warm_up_inputs=[InputShape([1, 5], "float32")])
    assert service.engine == "eager: it fails on the sample: RuntimeError"
    assert "the model failed on the warm-up sample: RuntimeError" in caplog.text
    assert ask(service)[0] == 200


RAISING = HANDLER.replace(
    "self.seen.append",
    "if len(data) == 1 and data[0]['body'][3] == 4.0: raise ValueError('no')\n"
    "        self.seen.append",
)


def test_a_handler_that_raises_on_the_warm_up_serves_the_next(
    load: Loader, caplog: pytest.LogCaptureFixture
) -> None:
    service = load(RAISING, warm_up_file="row.json")
    assert "the warm-up request failed: 503 Prediction failed" in caplog.text
    assert service.engine == "eager: the warm-up request failed"
    assert ask(service)[0] == 200


def test_a_file_that_is_gone_is_a_warning(load: Loader, caplog: pytest.LogCaptureFixture) -> None:
    service = load(warm_up_file="gone.json")
    assert "the warm-up failed: FileNotFoundError" in caplog.text
    assert ask(service)[0] == 200


OWN_MODEL = """
import torch
from ts.torch_handler.base_handler import BaseHandler
class Own(BaseHandler):
    seen = []
    def initialize(self, context):
        self.context, self.device = context, torch.device("cpu")
        self.model = torch.nn.Linear(4, 2).eval()
    def preprocess(self, data):
        self.seen.append(1)
        return torch.tensor([row["body"] for row in data])
"""

WRAPPED = HANDLER.replace(
    "type(self).last = self", "self.model = torch.nn.Sequential(self.model).eval()"
)

OVERRIDDEN = (
    HANDLER
    + """
    def _load_pickled_model(self, *names):
        return torch.nn.Linear(4, 2)
"""
)


@pytest.mark.parametrize("source", [OWN_MODEL, WRAPPED, OVERRIDDEN], ids=["own", "wrap", "load"])
def test_a_model_that_user_code_made_is_never_touched(load: Loader, source: str) -> None:
    service = load(source, warm_up_file="row.json")
    assert service.engine == ""
    assert not is_optimised(service)
    assert len(handler_of(service).seen) == 1
    assert ask(service)[0] == 200


def test_a_model_for_torch_compile_is_never_touched(load: Loader, tmp_path: Path) -> None:
    source = HANDLER.replace(
        "super().initialize(context)",
        "context.model_yaml_config = {'pt2': 'eager'}\n        super().initialize(context)",
    )
    assert load(source, warm_up_inputs=SHAPE).engine == ""


def test_a_handler_without_no_grad_is_left_alone(load: Loader) -> None:
    source = (
        HANDLER
        + """
    def inference(self, data):
        return self.model(data).detach()
"""
    )
    service = load(source, warm_up_file="row.json")
    assert "without torch.no_grad()" in service.engine
    assert ask(service)[0] == 200


def test_a_plain_handler_needs_no_torch_for_its_warm_up(tmp_path: Path) -> None:
    (tmp_path / "plain_rows.py").write_text(
        "seen = []\ndef handle(data, context):\n"
        "    if data is None: return\n    seen.append(data)\n    return [len(seen)]\n"
    )
    (tmp_path / "text.txt").write_text("hello")
    service = Service.load(
        Load(
            *("m", "1.0", str(tmp_path), "plain_rows.py", "", 1, True, True, {}),
            warm_up_file="text.txt",
        )
    )
    assert service.engine == ""
    assert ask(service) == (200, b"2")


def test_a_failed_load_is_not_warmed_up(load: Loader) -> None:
    with pytest.raises(LoadFailed):
        load("raise ValueError('x')", warm_up_file="row.json")
