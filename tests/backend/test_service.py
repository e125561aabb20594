"""A batch of request inputs, through a handler, to predictions."""

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from torchkeep.backend.handler_output import ProtocolViolation
from torchkeep.backend.service import LoadFailed, Service
from torchkeep.runtime.messages import (
    Chunk,
    InputParameter,
    Load,
    Metric,
    Prediction,
    RequestInput,
    Sandbox,
    pack,
    unpack,
    unpack_metadata,
)

Loader = Callable[..., Service]
Prober = Callable[[str], Any]


@pytest.fixture
def load_source(tmp_path: Path) -> Loader:
    """Loads a handler given as source text."""

    def load_one(source: str, handler: str = "my_handler.py", **changes: Any) -> Service:
        (tmp_path / "my_handler.py").write_text(source)
        fields: dict[str, Any] = {
            "model_name": "m",
            "model_version": "1.0",
            "model_dir": str(tmp_path),
            "handler": handler,
            "envelope": "",
            "batch_size": 4,
            "limit_max_image_pixels": True,
            "decode_input_request": True,
            "environment": {},
        }
        return Service.load(Load(**{**fields, **changes}))

    return load_one


def request(
    value: bytes = b"",
    content_type: str = "",
    name: str = "body",
    request_id: str = "r0",
    **headers: str,
) -> RequestInput:
    return RequestInput(request_id, headers, [InputParameter(name, value, content_type)])


SEE = """
seen = []
def handle(data, context):
    if data is None:
        return None
    seen[:] = [data, context]
    return ["" for _ in data]
"""


def seen() -> list[Any]:
    found: list[Any] = sys.modules["my_handler"].seen
    return found


@pytest.mark.parametrize(
    ("content_type", "value", "expected"),
    [
        ("application/json", b'{"a": 1}', {"a": 1}),
        ("application/json", b"null", None),
        ("application/json", b"", bytearray(b"")),
        ("application/json", b"{", bytearray(b"{")),
        ("application/json", b"\xef\xbb\xbf{}", bytearray(b"\xef\xbb\xbf{}")),
        ("application/json", "1".encode("utf-16"), bytearray("1".encode("utf-16"))),
        ("application/json", b"[" * 100_000, bytearray(b"[" * 100_000)),
        ("Application/JSON", b"{}", bytearray(b"{}")),
        ("application/ld+json", b"{}", bytearray(b"{}")),
        ("text/plain", "ä".encode(), "ä"),
        ("text", b"x", "x"),
        ("Text/plain", b"x", bytearray(b"x")),
        ("text/plain", b"\xff", bytearray(b"\xff")),
        ("", b"x", bytearray(b"x")),
        ("image/png", b"x", bytearray(b"x")),
    ],
)
def test_values_are_decoded_by_content_type(
    load_source: Loader, content_type: str, value: bytes, expected: Any
) -> None:
    load_source(SEE).predict([request(value, content_type)])
    row = seen()[0][0]
    assert row == {"body": expected}
    assert type(row["body"]) is type(expected)


def test_without_decoding_every_value_is_a_bytearray(load_source: Loader) -> None:
    load_source(SEE, decode_input_request=False).predict([request(b"{}", "application/json")])
    assert type(seen()[0][0]["body"]) is bytearray


def test_a_view_of_a_frame_arrives_as_a_bytearray(load_source: Loader) -> None:
    parameter = InputParameter("body", memoryview(b"xyz"), "")
    load_source(SEE).predict([RequestInput("r", {}, [parameter])])
    assert seen()[0] == [{"body": bytearray(b"xyz")}]


def test_the_last_of_repeated_names_wins(load_source: Loader) -> None:
    parameters = [InputParameter("a", b"1"), InputParameter("a", b"2")]
    load_source(SEE).predict([RequestInput("r", {}, parameters)])
    assert seen()[0] == [{"a": bytearray(b"2")}]


def test_headers_show_parameter_types_and_http_headers_override(load_source: Loader) -> None:
    parameters = [InputParameter("a", b"", "text/css"), InputParameter("Host", b"")]
    load_source(SEE).predict([RequestInput("r", {"Host": "h", "X-y": "1"}, parameters)])
    assert seen()[1].get_all_request_header(0) == {
        "a": {"content-type": "text/css"},
        "Host": "h",
        "X-y": "1",
    }


def test_the_context_shows_the_model(load_source: Loader, tmp_path: Path) -> None:
    (tmp_path / "MAR-INF").mkdir()
    manifest = {"model": {"modelName": "m", "configFile": "c.yaml"}}
    (tmp_path / "MAR-INF/MANIFEST.json").write_text(json.dumps(manifest))
    (tmp_path / "c.yaml").write_text("handler: {a: 1}")
    load_source(SEE).predict([request(request_id="a"), request(request_id="b")])
    context = seen()[1]
    assert context.model_name == "m"
    assert context.manifest == manifest
    assert context.model_yaml_config == {"handler": {"a": 1}}
    assert context.system_properties == {
        "model_dir": str(tmp_path),
        "gpu_id": None,
        "batch_size": 4,
        "server_name": "MMS",
        "server_version": "0.12.0",
        "limit_max_image_pixels": True,
    }
    assert context.request_ids == {0: "a", 1: "b"}
    assert context.get_request_id(2) is None
    assert os.getcwd() == str(tmp_path)


def test_without_manifest_the_context_has_none(load_source: Loader) -> None:
    load_source(SEE).predict([request()])
    assert seen()[1].manifest is None
    assert seen()[1].model_yaml_config == {}


def test_the_context_lives_between_batches_but_replies_do_not(load_source: Loader) -> None:
    source = """
def handle(data, context):
    if data is None:
        context.count = 0
        return
    context.count += 1
    if context.count == 1:
        context.set_response_status(201, "Made", 0)
        context.set_response_header(0, "x", "y")
    return [str(context.count)]
"""
    service = load_source(source)
    assert service.predict([request()]).items == [Prediction("r0", b"1", 201, "Made", {"x": "y"})]
    assert service.predict([request()]).items == [Prediction("r0", b"2", 200, "", {})]


@pytest.mark.parametrize(
    ("expression", "body"),
    [
        ("b'raw'", b"raw"),
        ("bytearray(b'raw')", b"raw"),
        ("'ä'", "ä".encode()),
        ("{'a': [1, 'ä']}", b'{\n  "a": [\n    1,\n    "\\u00e4"\n  ]\n}'),
        ("None", b"null"),
        ("True", b"true"),
        ("1.5", b"1.5"),
        ("float('nan')", b"NaN"),
        ("(1,)", b"[\n  1\n]"),
    ],
)
def test_elements_become_bodies(load_source: Loader, expression: str, body: bytes) -> None:
    service = load_source(f"def handle(data, context): return [{expression}]")
    reply = service.predict([request()])
    assert (reply.status, reply.message) == (200, "Prediction success")
    assert [item.body for item in reply.items] == [body]


@pytest.mark.torch
def test_a_tensor_is_serialised_by_torch(load_source: Loader) -> None:
    import io

    import torch

    service = load_source("import torch\ndef handle(d, c): return [torch.arange(3)]")
    body = service.predict([request()]).items[0].body
    assert torch.load(io.BytesIO(body), weights_only=True).tolist() == [0, 1, 2]


@pytest.mark.torch
def test_a_row_of_a_tensor_takes_no_other_row_with_it(load_source: Loader) -> None:
    import io

    torch = pytest.importorskip("torch")
    source = """
import torch
def handle(data, context):
    if data is not None:
        return list(torch.arange(2000.0).reshape(2, 1000))
"""
    items = load_source(source).predict([request(b"1"), request(b"2", request_id="r2")]).items
    first, second = (torch.load(io.BytesIO(bytes(item.body))) for item in items)
    assert (first[0].item(), second[0].item()) == (0.0, 1000.0)
    assert first.untyped_storage().nbytes() == 4000
    assert len(items[0].body) < 6000


PREDICTION_EXCEPTION = "from ts.service import PredictionException\n"


@pytest.mark.parametrize(
    ("statement", "status", "message"),
    [
        ("return None", 503, "Invalid model predict output"),
        ("return ('a',)", 503, "Invalid model predict output"),
        ("return {}", 503, "Invalid model predict output"),
        ("return 'a'", 503, "Invalid model predict output"),
        ("return []", 503, "number of batch response mismatched"),
        ("return [1, 2]", 503, "number of batch response mismatched"),
        ("return [object()]", 503, "Unsupported model output data type."),
        ("return [{1}]", 503, "Unsupported model output data type."),
        ("x = []; x.append(x); return [x]", 503, "Unsupported model output data type."),
        ("return ['\\ud800']", 503, "Unsupported model output data type."),
        ("raise ValueError('x')", 503, "Prediction failed"),
        ("raise ValueError('has CUDA inside')", 507, "Out of resources"),
        ("raise ValueError('cuda')", 503, "Prediction failed"),
        ("raise MemoryError", 507, "Out of resources"),
        ("raise PredictionException('mine')", 500, "mine"),
        ("raise PredictionException('CUDA', 404)", 404, "CUDA"),
        ("raise PredictionException('big', 413)", 507, "big"),
        ("raise PredictionException('odd', 999)", 999, "odd"),
        ("raise PredictionException('ok', 200)", 200, "ok"),
        ("raise PredictionException(ValueError('inner'), 400)", 400, "inner"),
    ],
)
def test_failures_answer_every_request(
    load_source: Loader, statement: str, status: int, message: str
) -> None:
    source = f"{PREDICTION_EXCEPTION}def handle(data, context):\n if data is not None: {statement}"
    reply = load_source(source).predict([request()])
    assert (reply.status, reply.message) == (status, message)
    assert reply.items == [Prediction("r0", b"error")]
    assert reply.metrics == []


@pytest.mark.parametrize(
    ("statement", "status"),
    [("raise PredictionException('secret', 404)", 404), ("raise ValueError('secret')", 503)],
)
def test_where_errors_stay_inside_an_answer_has_none_of_their_text(
    load_source: Loader, statement: str, status: int
) -> None:
    source = f"{PREDICTION_EXCEPTION}def handle(data, context):\n if data is not None: {statement}"
    reply = load_source(source, sandbox=Sandbox(tells_errors=False)).predict([request()])
    assert (reply.status, reply.message) == (status, "Prediction failed")


def test_the_traceback_of_a_failure_is_printed_without_the_body(
    load_source: Loader, capfd: pytest.CaptureFixture[str]
) -> None:
    source = "def handle(data, context):\n if data: raise ValueError('why')"
    load_source(source).predict([request(b"payload")])
    printed = capfd.readouterr().err
    assert "my_handler.py" in printed
    assert "ValueError: why" in printed
    assert "payload" not in printed


@pytest.mark.parametrize("error", ["SystemExit(3)", "KeyboardInterrupt()"])
def test_exit_and_interrupt_leave_the_service(load_source: Loader, error: str) -> None:
    service = load_source(f"def handle(data, context):\n if data: raise {error}")
    with pytest.raises((SystemExit, KeyboardInterrupt)):
        service.predict([request()])


@pytest.mark.parametrize(
    "statement",
    [
        "context.set_response_header(0, 'x', 1)",
        "context.set_response_header(0, 'x', b'y')",
        "context.set_response_header(0, 1, 'y')",
        "context.set_response_header(0, '', 'y')",
        "context.set_response_header(0, 'a b', 'y')",
        "context.set_response_header(0, 'x', 'a\\r\\nb: c')",
        "context.set_response_header(0, 'x', 'a\\x00')",
        "context.set_response_header(0, 'x', '\\ud800')",
        "context.set_response_status('200', '', 0)",
        "context.set_response_status(200.0, '', 0)",
        "context.set_response_status(1 << 31, '', 0)",
        "context.set_response_status(200, 1, 0)",
        "context.set_response_status(200, 'a\\nb', 0)",
    ],
)
def test_replies_that_cannot_be_sent_end_the_worker(load_source: Loader, statement: str) -> None:
    source = f"def handle(data, context):\n if data: {statement}\n return ['']"
    service = load_source(source)
    with pytest.raises(ProtocolViolation):
        service.predict([request()])


def test_a_prediction_exception_with_a_text_code_ends_the_worker(load_source: Loader) -> None:
    source = f"{PREDICTION_EXCEPTION}def handle(d, c):\n if d: raise PredictionException('', '404')"
    service = load_source(source)
    with pytest.raises(ProtocolViolation):
        service.predict([request()])


def test_a_handlers_status_keeps_its_body(load_source: Loader) -> None:
    source = """
import http
def handle(data, context):
    if data:
        context.set_response_status(http.HTTPStatus.NOT_FOUND, "Gone", 1)
        context.set_response_content_type(1, "text/x")
    return ["a", "b"]
"""
    reply = load_source(source).predict([request(request_id="0"), request(request_id="1")])
    assert reply.items == [
        Prediction("0", b"a"),
        Prediction("1", b"b", 404, "Gone", {"content-type": "text/x"}),
    ]


def test_metrics_of_the_call_come_with_the_reply(load_source: Loader) -> None:
    source = """
def handle(data, context):
    if data is None:
        return
    context.metrics.add_counter("Seen", 2, idx=1)
    context.metrics.add_counter("Bad", float("nan"))
    context.metrics.add_percent("Worse", "text")
    return ["" for _ in data]
"""
    reply = load_source(source).predict([request(request_id="a"), request(request_id="b")])
    labels = {"ModelName": "m", "Level": "Model"}
    prediction_time = reply.metrics[-1]
    assert reply.metrics[:-1] == [Metric("Seen", 2.0, "Count", "counter", labels, "b")]
    assert prediction_time.name == "PredictionTime"
    assert (prediction_time.unit, prediction_time.kind) == ("Milliseconds", "gauge")
    assert (prediction_time.dimensions, prediction_time.request_id) == (labels, "a,b")


def test_every_reply_survives_the_wire_format(load_source: Loader) -> None:
    source = "def handle(d, c):\n if d: c.metrics.add_percent('P', 1)\n return ['x']"
    reply = load_source(source).predict([request()])
    metadata, bodies = pack(reply)
    assert unpack(unpack_metadata(metadata), bodies) == reply


@pytest.mark.parametrize(
    ("source", "status", "message"),
    [
        ("raise ValueError('no weights')", 500, "ValueError: no weights"),
        ("raise ValueError('one\\n\\ttwo')", 500, "ValueError: one two"),
        ("raise MemoryError", 507, "System out of memory"),
        ("raise RuntimeError('CUDA is full')", 507, "System out of memory"),
        ("raise ValueError('CUDA is full')", 500, "ValueError: CUDA is full"),
        ("import no_such", 500, "ModuleNotFoundError: No module named 'no_such'"),
        ("def", 500, "SyntaxError: invalid syntax"),
    ],
)
def test_a_failed_load_tells_the_last_line(
    load_source: Loader, source: str, status: int, message: str, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(LoadFailed) as failed:
        load_source(source)
    assert (failed.value.status, failed.value.message) == (status, message)
    told = capfd.readouterr()
    assert "Traceback" in told.err
    # TorchServe: a worker that is short of memory lives on, and says so in its reply
    assert ("Backend worker process died.\n" in told.out) == (status == 500)


def test_exit_while_loading_leaves_the_service(load_source: Loader) -> None:
    with pytest.raises(SystemExit):
        load_source("raise SystemExit(4)")


def test_a_model_directory_that_is_gone_fails_the_load(
    load_source: Loader, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(LoadFailed, match="FileNotFoundError"):
        load_source("", model_dir=str(tmp_path / "gone"))
    assert "Traceback" in capfd.readouterr().err


@pytest.mark.torch
def test_a_handler_runs_as_it_was_written_for_torchserve(load_source: Loader) -> None:
    source = """
from ts.torch_handler.base_handler import BaseHandler
class WordLengths(BaseHandler):
    def initialize(self, context):
        self.context = context
        self.initialized = True
    def preprocess(self, data):
        return [row["body"].split() for row in data]
    def inference(self, data):
        return [[len(word) for word in words] for words in data]
    def postprocess(self, data):
        self.context.set_response_header(0, "X-Unit", "letters")
        return data
    def get_insights(self, tensor_data, raw_data, target):
        return [{"target": target, "words": words} for words in tensor_data]
"""
    service = load_source(source)
    reply = service.predict([request(b"two words", "text/plain")])
    assert json.loads(bytes(reply.items[0].body)) == [3, 5]
    assert reply.items[0].headers == {"X-Unit": "letters"}
    assert [metric.name for metric in reply.metrics] == ["HandlerTime", "PredictionTime"]
    reply = service.predict([request(b"why", "text/plain", explain="True")])
    assert json.loads(bytes(reply.items[0].body)) == {"target": 0, "words": ["why"]}


def test_another_spelling_of_a_header_replaces_it(load_source: Loader) -> None:
    source = """
def handle(data, context):
    if data:
        context.set_response_content_type(0, "text/plain")
        context.set_response_header(0, "Content-Type", "text/html")
    return [""]
"""
    (item,) = load_source(source).predict([request()]).items
    assert item.headers == {"Content-Type": "text/html"}


STREAM = """
from ts.handler_utils.utils import send_intermediate_predict_response
def handle(data, context):
    if data is not None:
        send_intermediate_predict_response(PIECES, context.request_ids, "more", 200, context)
        return LAST
"""


def streaming(load_source: Loader, pieces: str, last: str = "['last']") -> tuple[Service, Any]:
    sent: list[Any] = []
    service = load_source(STREAM.replace("PIECES", pieces).replace("LAST", last))
    service.connect(sent.append)
    return service, sent


def test_pieces_leave_before_the_last(load_source: Loader) -> None:
    service, sent = streaming(load_source, "['one']")
    for request_id in ("r0", "r1"):
        last = service.predict([request(request_id=request_id)])
        assert sent.pop() == Chunk(200, "more", [Prediction(request_id, b"one")])
        assert last.items == [Prediction(request_id, b"last")]


@pytest.mark.parametrize(
    ("pieces", "message"),
    [("[object()]", "Unsupported model output data type."), ("[]", "Prediction failed")],
)
def test_a_piece_that_cannot_be_sent_fails_the_batch(
    load_source: Loader, pieces: str, message: str
) -> None:
    service, sent = streaming(load_source, pieces)
    failed = service.predict([request()])
    assert (failed.status, failed.message, sent) == (503, message, [])


def test_between_batches_nothing_can_be_sent(load_source: Loader) -> None:
    for last in ("['last']", "None"):
        service, sent = streaming(load_source, "['one']", last)
        service.predict([request()])
        with pytest.raises(ValueError, match="no longer"):
            service._context.cl_socket.send_pieces(["late"], {0: "r0"}, "more", 200)
        assert len(sent) == 1


def test_the_metrics_yaml_of_the_server_is_that_of_the_handler(load_source: Loader) -> None:
    source = """
def handle(data, context):
    return [",".join(context.metrics.cache_keys()) + " " + context.metrics.config_file_path]
"""
    text = "model_metrics: {counter: [{name: N, unit: count, dimensions: [ModelName, Level]}]}"
    service = load_source(source, metrics_file="/no/metrics.yaml", metrics_config=text)
    (item,) = service.predict([request()]).items
    assert item.body == b"counter:N /no/metrics.yaml"


def test_a_metrics_yaml_without_model_metrics_fails_the_load(load_source: Loader) -> None:
    with pytest.raises(LoadFailed, match=r"MetricsCacheKeyError.*'model_metrics' key not found"):
        load_source("def handle(data, context): pass", metrics_config="ts_metrics: {}")
    with pytest.raises(LoadFailed, match=r"MetricsCacheIOError: /no/metrics.yaml: "):
        load_source("def handle(data, context): pass", metrics_file="/no/metrics.yaml")


FAILS_SOME = """
from ts.service import PredictionException

def handle(data, context):
    if data is None:
        return None
    STATEMENT
    return ["fine"] * len(data)
"""


@pytest.mark.parametrize(
    ("statement", "tells", "status", "message"),
    [
        ("context.fail(1, PredictionException('not this', 429))", True, 429, "not this"),
        ("context.fail(1, PredictionException('not this', 429))", False, 429, "Prediction failed"),
        ("context.fail(1, PredictionException('too large', 413))", True, 507, "too large"),
        ("context.fail(1, KeyError('a secret'))", True, 503, "Prediction failed"),
        ("context.fail(1, MemoryError())", True, 507, "Out of resources"),
    ],
)
def test_a_handler_may_fail_one_request_of_a_batch(
    load_source: Loader, statement: str, tells: bool, status: int, message: str
) -> None:
    sent: list[Any] = []
    service = load_source(
        FAILS_SOME.replace("STATEMENT", statement), sandbox=Sandbox(tells_errors=tells)
    )
    service.connect(sent.append)
    answer = service.predict([request(request_id=name) for name in ("r0", "r1", "r2")])
    assert sent == [Chunk(status, message, [Prediction("r1", b"error")])]
    assert [(item.request_id, item.body) for item in answer.items] == [
        (name, b"fine") for name in ("r0", "r1", "r2")
    ]


@pytest.mark.parametrize("index", [1, -1])
def test_a_request_that_is_not_in_the_batch_cannot_fail(load_source: Loader, index: int) -> None:
    statement = f"""
    try:
        context.fail({index}, ValueError())
    except IndexError as error:
        return [str(error)]"""
    service = load_source(FAILS_SOME.replace("    STATEMENT", statement))
    (item,) = service.predict([request()]).items
    assert bytes(item.body) == f"the batch has no request {index}, it has 1".encode()
