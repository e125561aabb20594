"""A handler loaded and asked without a worker, by TorchServe's interface."""

import io
import json
import logging
import os
from pathlib import Path
from typing import Any

import pytest

from ts.context import Context
from ts.metrics.dimension import Dimension
from ts.metrics.metric import Metric
from ts.metrics.process_memory_metric import check_process_mem_usage, get_cpu_usage
from ts.model_loader import ModelLoaderFactory
from ts.protocol.otf_message_handler import create_predict_response
from ts.service import PredictionException, Service, emit_metrics

BATCH = [
    {
        "requestId": b"r1",
        "headers": [{"name": b"h", "value": b"v"}],
        "parameters": [{"name": "data", "contentType": "", "value": b"1"}],
    },
    {"requestId": b"r2", "parameters": [{"name": "data", "contentType": "", "value": b"2"}]},
]
IDS = {0: "r1", 1: "r2"}


def service(entry_point: Any) -> Service:
    return Service("m", "/", None, entry_point, None, 2)


def test_requests_become_processors_rows_and_ids() -> None:
    processors, rows, ids = Service.retrieve_data_for_inference(BATCH)
    assert [one.get_request_properties() for one in processors] == [{"h": "v"}, {}]
    assert rows == [{"data": b"1"}, {"data": b"2"}]
    assert ids == IDS


def test_no_requests_at_all_are_refused() -> None:
    with pytest.raises(ValueError, match="Received invalid inputs"):
        Service.retrieve_data_for_inference(None)  # type: ignore[arg-type]


def test_a_batch_is_answered() -> None:
    def reversed_rows(data: Any, context: Context) -> list[bytes]:
        context.set_response_header(0, "h", context.get_request_header(0, "h"))
        return [row["data"] for row in reversed(data)]

    made = service(reversed_rows)
    reply = made.predict(BATCH)
    expected = create_predict_response([b"2", b"1"], IDS, "Prediction success", 200, made.context)
    assert reply == expected


def raising(error: BaseException) -> Any:
    def handle(data: Any, context: Context) -> Any:
        raise error

    return handle


@pytest.mark.parametrize(
    ("entry_point", "message", "code"),
    [
        (raising(KeyError("zz")), "Prediction failed", 503),
        (raising(PredictionException("nope", 404)), "nope", 404),
        (raising(MemoryError()), "Out of resources", 507),
        (lambda data, context: ["a"], "number of batch response mismatched", 503),
        (lambda data, context: "text", "Invalid model predict output", 503),
        (None, "the model m has no handler", 500),
    ],
)
def test_what_fails_answers_all_of_the_batch(entry_point: Any, message: str, code: int) -> None:
    expected = create_predict_response(None, IDS, message, code)
    assert service(entry_point).predict(BATCH) == expected


def test_metrics_are_logged_as_lines(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    emit_metrics([Metric("n", 1.5, "ms", [Dimension("a", "b")], "rid")])
    emit_metrics([])
    assert len(caplog.messages) == 1
    assert caplog.messages[0].startswith("[METRICS]n.Milliseconds:1.5|#a:b|#hostname:")


@pytest.fixture
def model_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    manifest = {"model": {"modelName": "m", "handler": "loaded.py:answer", "configFile": "c.yaml"}}
    (tmp_path / "MAR-INF").mkdir()
    (tmp_path / "MAR-INF/MANIFEST.json").write_text(json.dumps(manifest))
    (tmp_path / "c.yaml").write_text("handler: {greeting: hello}")
    (tmp_path / "loaded.py").write_text(
        "def answer(data, context):\n"
        "    context.metrics.add_counter('calls', 1)\n"
        "    greeting = context.model_yaml_config['handler']['greeting']\n"
        "    return data and [greeting for _ in data]\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


def test_an_unpacked_archive_is_loaded(model_dir: Path) -> None:
    loader = ModelLoaderFactory.get_model_loader()
    loaded = loader.load("m", str(model_dir), "loaded.py:answer", batch_size=2)
    reply = loaded.predict(BATCH)
    assert reply == create_predict_response(["hello"] * 2, IDS, "Prediction success", 200)
    assert loaded.context.system_properties["batch_size"] == 2
    assert loaded.context.manifest is not None


def test_the_manifest_names_the_handler_where_nobody_does(model_dir: Path) -> None:
    loaded = ModelLoaderFactory.get_model_loader().load("m", str(model_dir), envelope="body")
    assert loaded.predict(BATCH) is not None


def test_a_handler_that_nobody_names(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no handler: give one"):
        ModelLoaderFactory.get_model_loader().load("m", str(tmp_path))


def test_the_memory_of_processes(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    own = str(os.getpid())
    assert get_cpu_usage(own) > 1 << 20
    check_process_mem_usage(io.StringIO(f"{own},4194304\n1\n"))
    check_process_mem_usage(io.StringIO(""))
    assert caplog.messages[0].startswith(f"{own}:")
    assert caplog.messages[1:] == ["Failed get process for pid: 4194304", "4194304:0"]
    with pytest.raises(ValueError, match="abc"):
        check_process_mem_usage(io.StringIO("abc\n"))
