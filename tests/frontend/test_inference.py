"""The inference port without a server: routing, and what a prediction needs and gives."""

import asyncio
import json
import uuid
from typing import Any

import pytest

from torchkeep.frontend.app import ApiSettings, inference_app
from torchkeep.frontend.errors import (
    ModelNotFound,
    ModelVersionNotFound,
    ServiceUnavailable,
    WorkerFailed,
)
from torchkeep.frontend.exchange import EXCHANGE
from torchkeep.frontend.jobs import Job
from torchkeep.frontend.metrics import Metrics
from torchkeep.frontend.responses import Cors
from torchkeep.runtime.messages import Prediction, RequestInput


class FakeModel:
    """Answers at once, with the body it got unless told otherwise."""

    def __init__(self) -> None:
        self.requests: list[RequestInput] = []
        self.versions: list[str | None] = []
        self.jobs: list[Job] = []
        self.answer: Prediction | WorkerFailed | None = None
        self.is_available = True
        self.is_silent = False

    def submit(self, request: RequestInput, version: str | None = None) -> Job:
        if not self.is_available:
            raise ServiceUnavailable("no worker")
        self.requests.append(request)
        self.versions.append(version)
        job = Job(request, version or "default")
        self.jobs.append(job)
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

    def get(self, name: str, version: str | None = None) -> FakeModel:
        if name != "m":
            raise ModelNotFound(name)
        if version not in (None, "1.0"):
            raise ModelVersionNotFound(name, version or "")
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


def test_job_of_a_client_that_left_is_cancelled(app: Any, registry: FakeRegistry) -> None:
    registry.model.is_silent = True
    client = FakeExchange()
    sent: list[Any] = []

    async def receive() -> Any:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Any) -> None:
        sent.append(message)

    async def main() -> None:
        scope = {
            "method": "POST",
            "path": "/predictions/m",
            "raw_path": b"/predictions/m",
            "headers": [],
            "extensions": {EXCHANGE: client},
        }
        async with asyncio.timeout(10), asyncio.TaskGroup() as tasks:
            tasks.create_task(app(scope, receive, send))
            while client.on_disconnect is None:  # noqa: ASYNC110 - a plain attribute
                await asyncio.sleep(0)
            client.disconnected = True
            client.on_disconnect()
        assert registry.model.jobs[0].is_over

    asyncio.run(main())
    assert not sent
