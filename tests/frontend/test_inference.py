"""The inference port without a server: routing, and what a prediction needs and gives."""

import asyncio
import json
import uuid
from collections.abc import Callable
from typing import Any

import pytest

from torchkeep.frontend import piece_stream
from torchkeep.frontend.app import ApiSettings, inference_app
from torchkeep.frontend.errors import (
    ModelNotFound,
    ModelVersionNotFound,
    ModelWaits,
    ServiceUnavailable,
    WorkerFailed,
)
from torchkeep.frontend.exchange import EXCHANGE
from torchkeep.frontend.jobs import Job
from torchkeep.frontend.metrics import Metrics
from torchkeep.frontend.openapi import model_document
from torchkeep.frontend.responses import Cors
from torchkeep.frontend.served_model import ModelSpec
from torchkeep.runtime.messages import Prediction, RequestInput

EXTENSIONS = ["kserve", "kubeflow"]
METADATA = {"name": "m", "versions": ["1.0"], "platform": "pytorch", "inputs": [], "outputs": []}


class FakeModel:
    """Answers at once, with the body it got unless told otherwise."""

    def __init__(self) -> None:
        self.requests: list[RequestInput] = []
        self.versions: list[str | None] = []
        self.jobs: list[Job] = []
        self.answer: Prediction | WorkerFailed | None = None
        self.pieces: list[Prediction] = []  # before the answer
        self.is_available = True
        self.is_silent = False
        self.is_ready = True
        self.spec = ModelSpec("m", "1.0", "m.mar", "handler")

    def submit(self, request: RequestInput, version: str | None = None) -> Job:
        if not self.is_available:
            raise ServiceUnavailable("no worker")
        self.requests.append(request)
        self.versions.append(version)
        job = Job(request, version or "default")
        self.jobs.append(job)
        for piece in self.pieces:
            job.add_piece(piece)
        if isinstance(self.answer, WorkerFailed):
            job.fail(self.answer)
        elif not self.is_silent:
            body = b"".join(bytes(p.value) for p in request.parameters)
            job.answer(self.answer or Prediction(request.request_id, body))
        return job


class FakeRegistry:
    def __init__(self) -> None:
        self.model = FakeModel()
        self.healthy = True
        self.only_startup_name: str | None = None
        self.is_waiting = False

    def versions(self, name: str) -> list[FakeModel]:
        return [self.get(name)]

    def is_ready(self) -> bool:
        return self.model.is_ready

    def get(self, name: str, version: str | None = None) -> FakeModel:
        if name != "m":
            raise ModelNotFound(name)
        if version not in (None, "1.0"):
            raise ModelVersionNotFound(name, version or "")
        if self.is_waiting:
            raise ModelWaits(name)
        return self.model

    def is_healthy(self) -> bool:
        return self.healthy


@pytest.fixture
def registry() -> FakeRegistry:
    return FakeRegistry()


@pytest.fixture
def metrics() -> Metrics:
    return Metrics("host")


@pytest.fixture
def app(registry: FakeRegistry, metrics: Metrics) -> Any:
    return inference_app(registry, metrics, ApiSettings())  # type: ignore[arg-type]


@pytest.mark.parametrize("path", ["/ping", "/ping/", "/ping/x", "/%70ing"])
def test_ping(ask: Any, app: Any, path: str) -> None:
    answer = ask(app, "GET", path)
    assert (answer.status, answer.body) == (200, b'{\n  "status": "Healthy"\n}\n')
    assert answer.headers["content-type"] == "application/json"


def test_ping_of_an_unhealthy_server(ask: Any, app: Any, registry: FakeRegistry) -> None:
    registry.healthy = False
    answer = ask(app, "GET", "/ping")
    assert (answer.status, answer.json) == (500, {"status": "Unhealthy"})


@pytest.mark.parametrize(
    ("path", "status", "kind"),
    [
        ("/", 405, "MethodNotAllowedException"),
        ("//", 405, "MethodNotAllowedException"),
        ("//ping", 404, "ResourceNotFoundException"),
        ("/Ping", 404, "ResourceNotFoundException"),
        ("/predictions", 404, "ResourceNotFoundException"),
        ("/predictions/", 404, "ResourceNotFoundException"),
        ("/explanations", 404, "ResourceNotFoundException"),
        ("/nothing/here", 404, "ResourceNotFoundException"),
        ("/predictions/none", 404, "ModelNotFoundException"),
        ("/predictions/m/9", 404, "ModelVersionNotFoundException"),
        ("/predictions/m%ZZ", 403, "IllegalArgumentException"),
    ],
)
def test_paths_that_lead_nowhere(ask: Any, app: Any, path: str, status: int, kind: str) -> None:
    answer = ask(app, "GET", path)
    assert (answer.status, answer.json["code"], answer.json["type"]) == (status, status, kind)


def test_every_answer_has_the_common_headers(ask: Any, app: Any) -> None:
    for path in ("/ping", "/nothing", "/predictions/m"):
        headers = ask(app, "GET", path, headers={"X-Request-Id": "mine"}).headers
        assert uuid.UUID(headers["x-request-id"]).version == 4
        assert headers["pragma"] == "no-cache"
        assert headers["cache-control"] == "no-cache; no-store, must-revalidate, private"
        assert headers["expires"] == "Thu, 01 Jan 1970 00:00:00 UTC"


def test_cors_headers(ask: Any, registry: FakeRegistry, metrics: Metrics) -> None:
    settings = ApiSettings(cors=Cors(origin="http://a"))
    app = inference_app(registry, metrics, settings)  # type: ignore[arg-type]
    headers = ask(app, "GET", "/ping").headers
    assert headers["access-control-allow-origin"] == "http://a"
    assert "access-control-allow-methods" not in headers


def test_prediction_gives_back_raw_bytes(ask: Any, app: Any, registry: FakeRegistry) -> None:
    answer = ask(app, "POST", "/predictions/m", b"\0\xff", {"Content-Type": "image/png"})
    assert (answer.status, answer.reason, answer.body) == (200, "", b"\0\xff")
    assert "content-type" not in answer.headers
    (request,) = registry.model.requests
    assert request.request_id == answer.headers["x-request-id"]
    assert request.parameters[0].content_type == "image/png"
    assert request.headers == {
        "Content-Type": "image/png",
        "content-length": "2",
        "explain": "False",
        "url_path": "",
    }


@pytest.mark.parametrize(
    ("path", "version", "url_path"),
    [
        ("/predictions/m", None, ""),
        ("/predictions/m/1.0", "1.0", ""),
        ("/predictions/m/1.0/v1/chat", "1.0", "v1/chat"),
        ("/predictions/m/1.0/a//b//", "1.0", "a//b"),
        ("/predictions/m%2F1.0", "1.0", ""),
        ("/predictions/m?x=1", None, ""),
    ],
)
def test_version_and_url_path(
    ask: Any, app: Any, registry: FakeRegistry, path: str, version: str | None, url_path: str
) -> None:
    assert ask(app, "POST", path).status == 200
    assert registry.model.versions == [version]
    assert registry.model.requests[0].headers["url_path"] == url_path


def test_explanation_says_so_to_the_handler(ask: Any, app: Any, registry: FakeRegistry) -> None:
    ask(app, "POST", "/explanations/m/1.0", headers={"explain": "no"})
    assert registry.model.requests[0].headers["explain"] == "True"


@pytest.mark.parametrize(
    ("path", "version", "added"),
    [
        ("/v1/models/m:predict", None, {"explain": "False"}),
        ("/v1/models/m:explain", None, {"explain": "True"}),
        ("/v2/models/m/infer", None, {"explain": "False"}),
        ("/models/m/invoke", None, {}),
        ("/invocations?model_name=m", None, {}),
        ("/m/predict", None, {}),
        ("/m/1.0/predict", "1.0", {}),
    ],
)
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_other_routes_run_inference_too(
    ask: Any,
    app: Any,
    registry: FakeRegistry,
    metrics: Metrics,
    method: str,
    path: str,
    version: str | None,
    added: dict[str, str],
) -> None:
    assert ask(app, method, path, b"x").status == 200
    assert registry.model.versions == [version]
    assert registry.model.requests[0].headers == {"content-length": "1", **added}
    counted = f'ts_inference_requests_total{{model_name="m",model_version="{version or "default"}",'
    assert counted in metrics.text().decode()


@pytest.mark.parametrize(
    ("path", "names"),
    [
        ("/predictions/m?a=1", ["body"]),
        ("/v1/models/m:predict?a=1", ["body"]),
        ("/models/m/invoke?a=1", ["a", "body"]),
        ("/m/predict?a=1;b", ["a", "b", "body"]),
        ("/invocations?model_name=m&a=1", ["model_name", "a", "body"]),
    ],
)
def test_query_reaches_the_handler_on_sagemakers_and_legacy_routes(
    ask: Any, app: Any, registry: FakeRegistry, path: str, names: list[str]
) -> None:
    ask(app, "POST", path, b"x")
    assert [one.name for one in registry.model.requests[0].parameters] == names


def test_invocations_asks_the_query_then_the_only_model_then_the_form(
    ask: Any, app: Any, registry: FakeRegistry
) -> None:
    form = {"Content-Type": "application/x-www-form-urlencoded"}

    def invoke(query: str = "", body: bytes = b"") -> tuple[int, str]:
        answer = ask(app, "POST", f"/invocations{query}", body, form)
        return answer.status, answer.json["message"] if answer.status != 200 else ""

    assert invoke() == (400, "Parameter model_name is required.")
    assert invoke(body=b"model_name=m") == (200, "")
    assert invoke(body=b"model_name=none") == (404, "Model not found: none")
    registry.only_startup_name = "m"
    assert invoke(body=b"model_name=none") == (200, "")
    assert invoke("?model_name=none") == (404, "Model not found: none")
    assert invoke("?model_name=") == (404, "Model not found: ")


@pytest.mark.parametrize(
    "path",
    [
        *("/predictions/m", "/predictions/m/1.0", "/explanations/m", "/v1/models/m:predict"),
        *("/v2/models/m/infer", "/models/m/invoke", "/m/predict", "/invocations?model_name=m"),
    ],
)
def test_options_describes_the_model(ask: Any, app: Any, registry: Any, path: str) -> None:
    answer = ask(app, "OPTIONS", path)
    assert (answer.status, answer.json) == (200, model_document("m"))
    assert not registry.model.requests


@pytest.mark.parametrize("path", ["/predictions/none", "/predictions/m/9", "/none/predict"])
def test_options_of_an_unknown_model(ask: Any, app: Any, path: str) -> None:
    assert ask(app, "OPTIONS", path).status == 404


@pytest.mark.parametrize(
    ("path", "status", "answered"),
    [
        ("/v2", 200, {"name": "Torchserve", "version": "0.12.0", "extenstion": EXTENSIONS}),
        ("/v2/health/live", 200, {"live": True}),
        ("/v2/health/ready/", 200, {"ready": True}),
        ("/v2/models/m", 200, METADATA),
        ("/v2/models/m/ready", 200, {"name": "m", "ready": True}),
        ("/v2/models/m/versions/1", 501, {"error": "Model versioning is not yet supported."}),
        ("/v1/a/b/c/versions", 501, {"error": "Model versioning is not yet supported."}),
    ],
)
@pytest.mark.parametrize("method", ["GET", "POST", "OPTIONS"])
def test_open_inference_protocol_where_it_is_on(
    ask: Any, registry: Any, metrics: Metrics, path: str, status: int, answered: Any, method: str
) -> None:
    settings = ApiSettings(is_open_inference_enabled=True)
    answer = ask(inference_app(registry, metrics, settings), method, path)
    assert (answer.status, answer.json) == (status, answered)
    assert ask(inference_app(registry, metrics, ApiSettings()), method, path).status == 404


@pytest.mark.parametrize("method", ["POST", "PUT", "HEAD"])
def test_only_get_asks_as_kserves_version_1_does(
    ask: Any, registry: Any, metrics: Metrics, method: str
) -> None:
    app = inference_app(registry, metrics, ApiSettings(is_open_inference_enabled=True))
    assert ask(app, "GET", "/").json == {"status": "alive"}
    assert ask(app, "GET", "/v1/models/m").json == {"name": "m", "ready": True}
    assert ask(app, method, "/").status == 405
    assert ask(app, method, "/v1/models/m").status == 404


@pytest.mark.parametrize("path", ["/v2/models/m/ready", "/v1/models/m"])
def test_a_model_is_ready_once_a_worker_has_loaded_it(
    ask: Any, registry: FakeRegistry, metrics: Metrics, path: str
) -> None:
    settings = ApiSettings(is_open_inference_enabled=True)
    app = inference_app(registry, metrics, settings)  # type: ignore[arg-type]
    registry.model.is_ready = False
    answer = ask(app, "GET", path)
    assert (answer.status, answer.json) == (503, {"name": "m", "ready": False})
    assert ask(app, "GET", "/v2/health/ready").status == 503
    registry.is_waiting = True
    answer = ask(app, "GET", path)
    assert (answer.status, answer.json) == (503, {"name": "m", "ready": False})
    assert ask(app, "GET", "/v2/health/live").status == 200


@pytest.mark.parametrize("path", ["/v2/models/none", "/v2/models/none/ready", "/v1/models/none"])
def test_readiness_of_an_unknown_model(
    ask: Any, registry: Any, metrics: Metrics, path: str
) -> None:
    app = inference_app(registry, metrics, ApiSettings(is_open_inference_enabled=True))
    assert ask(app, "GET", path).status == 404


@pytest.mark.parametrize("path", ["/v2/health", "/v2/models", "/v2/models/m/x", "/a/b/c/versions"])
def test_open_inference_protocol_has_nothing_else(
    ask: Any, registry: Any, metrics: Metrics, path: str
) -> None:
    settings = ApiSettings(is_open_inference_enabled=True)
    assert ask(inference_app(registry, metrics, settings), "GET", path).status == 404


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "PATCH", "HEAD"])
def test_every_method_runs_inference(ask: Any, app: Any, registry: Any, method: str) -> None:
    assert ask(app, method, "/predictions/m").status == 200
    assert len(registry.model.requests) == 1


def test_status_phrase_and_headers_of_the_handler(
    ask: Any, app: Any, registry: FakeRegistry
) -> None:
    registry.model.answer = Prediction("id", b"x", 999, "Odd", {"Content-Type": "a/b"})
    answer = ask(app, "POST", "/predictions/m")
    assert (answer.status, answer.reason, answer.headers["content-type"]) == (999, "Odd", "a/b")


@pytest.mark.parametrize(("status", "seen"), [(503, 503), (507, 507), (599, 599), (413, 507)])
def test_failure_of_the_worker(
    ask: Any, app: Any, registry: FakeRegistry, status: int, seen: int
) -> None:
    registry.model.answer = WorkerFailed(status, "Prediction failed")
    answer = ask(app, "POST", "/predictions/m")
    assert (answer.status, answer.reason) == (seen, None)
    assert answer.json == {
        "code": seen,
        "type": "InternalServerException",
        "message": "Prediction failed",
    }


def test_no_worker(ask: Any, app: Any, registry: FakeRegistry) -> None:
    registry.model.is_available = False
    answer = ask(app, "POST", "/predictions/m")
    assert (answer.status, answer.json["type"]) == (503, "ServiceUnavailableException")


def test_unexpected_error_shows_no_payload(
    ask: Any, app: Any, registry: FakeRegistry, caplog: pytest.LogCaptureFixture
) -> None:
    registry.model.submit = None  # type: ignore[assignment,method-assign]
    answer = ask(app, "POST", "/predictions/m", b"payload")
    assert (answer.status, answer.json["type"]) == (500, "InternalServerException")
    assert "NoneType" not in json.dumps(answer.json)
    assert "Traceback" in caplog.text
    assert "payload" not in caplog.text


def test_predictions_are_counted(ask: Any, app: Any, metrics: Metrics) -> None:
    ask(app, "POST", "/predictions/m")
    ask(app, "POST", "/predictions/m/1.0")
    ask(app, "POST", "/predictions/none")
    text = metrics.text().decode()
    assert 'ts_inference_requests_total{model_name="m",model_version="default",' in text
    assert 'ts_inference_latency_microseconds{model_name="m",model_version="1.0",' in text
    assert 'Requests2XX{Level="Host",Hostname="host",} 2.0' in text
    assert 'Requests4XX{Level="Host",Hostname="host",} 1.0' in text
    assert 'model_name="none"' not in text


class FakeExchange:
    """The part of the protocol's exchange that a disconnecting client touches."""

    def __init__(self) -> None:
        self.disconnected = False
        self.on_disconnect: Any = None

    def reset(self) -> None:
        self.leave()

    def leave(self) -> None:
        self.disconnected = True
        if self.on_disconnect is not None:
            self.on_disconnect()


def scope_of(client: FakeExchange) -> dict[str, Any]:
    return {
        "method": "POST",
        "path": "/predictions/m",
        "raw_path": b"/predictions/m",
        "headers": [],
        "extensions": {EXCHANGE: client},
    }


def test_job_of_a_client_that_left_is_cancelled(app: Any, registry: FakeRegistry) -> None:
    registry.model.is_silent = True
    client = FakeExchange()
    sent: list[Any] = []

    async def receive() -> Any:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Any) -> None:
        sent.append(message)

    async def main() -> None:
        scope = scope_of(client)
        async with asyncio.timeout(10), asyncio.TaskGroup() as tasks:
            tasks.create_task(app(scope, receive, send))
            while client.on_disconnect is None:  # noqa: ASYNC110 - a plain attribute
                await asyncio.sleep(0)
            client.leave()
        assert registry.model.jobs[0].is_over

    asyncio.run(main())
    assert not sent


def streaming(model: FakeModel, *pieces: bytes, **first: Any) -> None:
    model.pieces = [Prediction("id", piece) for piece in pieces]
    model.pieces[0] = Prediction("id", pieces[0], **first)


def test_a_stream_has_the_head_of_its_first_piece(
    ask: Any, app: Any, registry: FakeRegistry
) -> None:
    own = {"Content-Type": "a/b", "TS_Stream_Next": "mine", "Transfer-Encoding": "identity"}
    streaming(registry.model, b"one ", b"", b"two ", status=201, reason="Odd", headers=own)
    registry.model.answer = Prediction("id", b"three", 500, "Too Late", {"x-late": "late"})
    answer = ask(app, "POST", "/predictions/m")
    assert (answer.status, answer.reason, answer.body) == (201, "Odd", b"one two three")
    assert answer.headers["ts_stream_next"] == "true"
    assert answer.headers["content-type"] == "a/b"
    assert uuid.UUID(answer.headers["x-request-id"])
    assert not {"x-late", "transfer-encoding"} & set(answer.headers)


@pytest.mark.parametrize("word", ["true", "false"])
def test_a_mark_without_a_stream_is_a_header_like_any_other(
    ask: Any, app: Any, registry: FakeRegistry, word: str
) -> None:
    # TorchServe's clients wait for ever: their defect, left out on purpose.
    registry.model.answer = Prediction("id", b"all of it", headers={"ts_stream_next": word})
    answer = ask(app, "POST", "/predictions/m")
    assert (answer.status, answer.body) == (200, b"all of it")


def test_a_first_piece_that_no_head_can_carry_is_an_error(
    ask: Any, app: Any, registry: FakeRegistry
) -> None:
    streaming(registry.model, b"one ", b"two ", headers={"x": "a\r\nb"})
    assert ask(app, "POST", "/predictions/m").json["message"] == "Worker died."


@pytest.mark.parametrize("path", ["/predictions/m", "/m/predict", "/v1/models/m:predict"])
def test_latency_is_that_of_the_last_piece(
    ask: Any, app: Any, registry: FakeRegistry, metrics: Metrics, path: str
) -> None:
    latency = 'ts_inference_latency_microseconds{model_name="m",model_version="default",'
    streaming(registry.model, b"one ")
    registry.model.answer = WorkerFailed(500, "Worker died.")
    ask(app, "POST", path)
    text = metrics.text().decode()
    assert latency not in text
    assert 'Requests2XX{Level="Host",Hostname="host",} 1.0' in text
    registry.model.answer = None
    ask(app, "POST", path)
    assert latency in metrics.text().decode()


def test_a_stream_that_fails_has_no_last_piece_and_its_text_stays_here(
    app: Any, registry: FakeRegistry, caplog: pytest.LogCaptureFixture
) -> None:
    client = FakeExchange()
    streaming(registry.model, b"one ", b"two ")
    registry.model.answer = WorkerFailed(503, "a payload")
    sent = asyncio.run(sent_to(client, app))
    assert [(one["body"], one["more_body"]) for one in sent[1:]] == [
        (b"one ", True),
        (b"two ", True),
    ]
    assert client.disconnected
    assert "stream cut, WorkerFailed" in caplog.text
    assert "payload" not in caplog.text


def test_a_client_that_leaves_in_mid_stream_ends_it(app: Any, registry: FakeRegistry) -> None:
    client = FakeExchange()
    registry.model.is_silent = True
    streaming(registry.model, b"one ", b"two ")
    sent = asyncio.run(sent_to(client, app, at=b"two ", do=client.leave))
    assert [one["body"] for one in sent[1:]] == [b"one ", b"two "]
    (job,) = registry.model.jobs
    assert job.stream is not None
    with pytest.raises(asyncio.CancelledError):
        asyncio.run(job.stream.take())


def test_a_client_that_falls_far_behind_is_cut(
    app: Any, registry: FakeRegistry, monkeypatch: pytest.MonkeyPatch, caplog: Any
) -> None:
    monkeypatch.setattr(piece_stream, "MAX_WAITING_BYTES", 1000)
    client = FakeExchange()
    registry.model.is_silent = True
    streaming(registry.model, b"one ", b"two ")

    def overrun() -> None:
        for _ in range(100):
            registry.model.jobs[0].add_piece(Prediction("id", b"x"))

    asyncio.run(sent_to(client, app, at=b"two ", do=overrun))
    assert client.disconnected
    assert "stream cut, ClientTooSlow" in caplog.text


async def sent_to(
    client: FakeExchange,
    app: Any,
    at: bytes | None = None,
    do: Callable[[], None] = lambda: None,
) -> list[Any]:
    """What the application sends to one client, of which `do` happens with the body `at`."""
    sent: list[Any] = []

    async def receive() -> Any:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Any) -> None:
        sent.append(message)
        if at is not None and message.get("body") == at:
            do()

    async with asyncio.timeout(10):
        await app(scope_of(client), receive, send)
    return sent
