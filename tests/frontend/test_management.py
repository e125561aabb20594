"""The management port without a server: TorchServe's API, route by route."""

import re
from dataclasses import replace
from typing import Any

import pytest

from torchkeep.frontend.app import ApiSettings, management_app
from torchkeep.frontend.errors import (
    ConflictStatus,
    DefaultVersionNotFound,
    InvalidModelVersion,
    ModelNotFound,
    ModelVersionNotFound,
    RequestTimeout,
    ServiceUnavailable,
)
from torchkeep.frontend.jobs import Job, JobQueue
from torchkeep.frontend.metrics import Metrics
from torchkeep.frontend.model_spec import ModelSpec, Registration
from torchkeep.frontend.openapi import model_management_document
from torchkeep.modelstore.errors import ArchiveNotFound
from torchkeep.runtime.messages import Prediction, RequestInput


class FakeWorker:
    def __init__(self, worker_id: str) -> None:
        self.worker_id = worker_id
        self.pid = 12345
        self.started_at = 1717105307.098
        self.memory_bytes = 0
        self.is_ready = True
        self.last_error = ""
        self.gpu_id = -1


class FakeModel:
    """Scales at once, to the status it is told to."""

    def __init__(self, spec: ModelSpec) -> None:
        self.spec = spec
        self.workers: list[FakeWorker] = []
        self.queue = JobQueue(spec.job_queue_size)
        self.scale_status = 200
        self.is_scaled = True
        self.last_error = ""
        self.requests: list[RequestInput] = []
        self.answer: Prediction | None = None

    @property
    def is_ready(self) -> bool:
        return any(worker.is_ready for worker in self.workers)

    def begin_scale(self, min_workers: int, max_workers: int) -> None:
        self.spec = replace(self.spec, min_workers=min_workers, max_workers=max_workers)
        self.workers = [FakeWorker(str(9000 + n)) for n in range(min_workers)]
        for worker in self.workers:
            worker.last_error = self.last_error

    async def scale(self, min_workers: int, max_workers: int) -> int:
        self.begin_scale(min_workers, max_workers)
        return self.scale_status if min_workers else 200

    def submit(
        self, request: RequestInput, version: str | None = None, describes: bool = False
    ) -> Job:
        if self.answer is None:
            raise ServiceUnavailable("no worker to serve inference request")
        self.requests.append(request)
        job = Job(request, version or "default", describes)
        self.described = describes
        job.answer(self.answer)
        return job


class FakeRegistry:
    def __init__(self) -> None:
        self.models: dict[str, dict[str, FakeModel]] = {}
        self.defaults: dict[str, str] = {}
        self.registrations: list[Registration] = []
        self.failure: Exception | None = None
        self.prepare: dict[str, Any] = {}

    def add(self, name: str, version: str = "1.0", **fields: Any) -> FakeModel:
        model = FakeModel(ModelSpec(name, version, f"{name}.mar", "handler", **fields))
        self.models.setdefault(name, {})[version] = model
        self.defaults.setdefault(name, version)
        return model

    def get(self, name: str, version: str | None = None) -> FakeModel:
        if name not in self.models:
            raise ModelNotFound(name)
        try:
            return self.models[name][self.defaults[name] if version is None else version]
        except KeyError:
            raise ModelVersionNotFound(name, version or "") from None

    def urls(self) -> list[tuple[str, str]]:
        return sorted((name, self.get(name).spec.url) for name in self.models)

    def is_waiting(self, name: str, version: str | None = None) -> bool:
        return False  # see test_waiting_model.py

    def waiting(self, name: str) -> list[Any]:
        return []

    def versions(self, name: str) -> list[FakeModel]:
        self.get(name)
        return list(self.models[name].values())

    def set_default(self, name: str, version: str) -> None:
        self.get(name)
        if version not in self.models[name]:
            raise DefaultVersionNotFound(name, version)
        self.defaults[name] = version

    async def register(self, registration: Registration) -> FakeModel:
        self.registrations.append(registration)
        if self.failure is not None:
            raise self.failure
        workers = max(0, registration.initial_workers or 0)
        model = self.add("m", min_workers=workers, max_workers=workers)
        for name, value in self.prepare.items():
            setattr(model, name, value)
        return model

    async def unregister(self, name: str, version: str | None = None) -> None:
        if self.failure is not None:
            raise self.failure
        del self.models[name][self.get(name, version).spec.version]
        if not self.models[name]:
            del self.models[name]


@pytest.fixture
def registry() -> FakeRegistry:
    return FakeRegistry()


@pytest.fixture
def app(registry: FakeRegistry) -> Any:
    settings = ApiSettings(is_model_api_enabled=True)
    return management_app(registry, Metrics("host"), settings)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["m", "m:predict"])
def test_kserve_readiness_counts_workers(
    ask: Any, app: Any, registry: FakeRegistry, name: str
) -> None:
    model = registry.add("m")
    assert ask(app, "GET", f"/v1/models/{name}").json == {"name": "m", "ready": False}
    model.begin_scale(1, 1)
    model.workers[0].is_ready = False  # TorchServe: it need not have loaded
    answer = ask(app, "GET", f"/v1/models/{name}")
    assert answer.body == b'{\n  "name": "m",\n  "ready": true\n}\n'


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/v1/models/none", 404),
        ("GET", "/v1/models", 404),
        ("GET", "/v1/models/m/more", 404),
        *((method, "/v1/models/m", 405) for method in ("POST", "PUT", "HEAD", "OPTIONS")),
        ("PUT", "/v1/models/none", 405),
    ],
)
def test_what_kserve_readiness_refuses(
    ask: Any, app: Any, registry: FakeRegistry, method: str, path: str, status: int
) -> None:
    registry.add("m")
    assert ask(app, method, path).status == status


@pytest.mark.parametrize(
    "path", ["/models/m", "/models/m/1.0", "/models/m/1.0/set-default", "/models/m/2/set-default"]
)
def test_options_describes_how_a_model_is_managed(
    ask: Any, app: Any, registry: FakeRegistry, path: str
) -> None:
    registry.add("m")
    answer = ask(app, "OPTIONS", path)
    assert (answer.status, answer.json) == (200, model_management_document("m"))


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("/models/none", "Model not found: none"),
        ("/models/m/9", "Model version: 9 does not exist for model: m"),
        ("/models/m/all", "Model version: all does not exist for model: m"),
    ],
)
def test_options_of_a_model_that_is_not_there(
    ask: Any, app: Any, registry: FakeRegistry, path: str, message: str
) -> None:
    registry.add("m")
    answer = ask(app, "OPTIONS", path)
    assert (answer.status, answer.json["message"]) == (404, message)


def test_register_without_workers(ask: Any, app: Any, registry: FakeRegistry) -> None:
    answer = ask(app, "POST", "/models?url=m.mar")
    assert answer.status == 200
    assert answer.json["status"] == (
        'Model "m" Version: 1.0 registered with 0 initial workers. '
        "Use scale workers API to add workers for the model."
    )
    (registration,) = registry.registrations
    assert registration.url == "m.mar"
    assert registration.initial_workers is None


def test_register_waits_for_workers(ask: Any, app: Any) -> None:
    answer = ask(app, "POST", "/models?url=m.mar&initial_workers=2")
    assert answer.status == 200
    assert answer.json["status"] == 'Model "m" Version: 1.0 registered with 2 initial workers'


@pytest.mark.parametrize("text", ["false", "no", "1", ""])
def test_register_without_waiting(ask: Any, app: Any, text: str) -> None:
    answer = ask(app, "POST", f"/models?url=m.mar&initial_workers=1&synchronous={text}")
    assert (answer.status, answer.json["status"]) == (202, "Processing worker updates...")


def test_register_with_too_few_workers(ask: Any, app: Any, registry: FakeRegistry) -> None:
    registry.prepare = {"is_scaled": False}
    answer = ask(app, "POST", "/models?url=m.mar&initial_workers=1&synchronous=TRUE")
    assert (answer.status, answer.json["status"]) == (206, "Workers scaling in progress...")


@pytest.mark.parametrize("status", [500, 507])
def test_register_whose_worker_dies_is_undone(
    ask: Any, app: Any, registry: FakeRegistry, status: int
) -> None:
    registry.prepare = {"scale_status": status}
    answer = ask(app, "POST", "/models?url=m.mar&initial_workers=1")
    assert answer.status == status
    assert answer.json == {
        "code": status,
        "type": "InternalServerException",
        "message": "Failed to start workers for model m version: 1.0",
    }
    assert not registry.models


def test_failed_register_says_what_the_handler_said_last(
    ask: Any, app: Any, registry: FakeRegistry
) -> None:
    registry.prepare = {"scale_status": 500, "last_error": "ValueError: no weights"}
    answer = ask(app, "POST", "/models?url=m.mar&initial_workers=1")
    assert answer.json["message"] == (
        "Failed to start workers for model m version: 1.0 : ValueError: no weights"
    )
    # Unlike TorchServe, which keeps such a model: a corrected archive can be registered at once.
    assert not registry.models


def test_query_parameters_of_register(ask: Any, app: Any, registry: FakeRegistry) -> None:
    query = (
        "url=a%2Bb.mar&url=ignored&model_name=x&handler=h:f&runtime=python3&batch_size=0"
        "&max_batch_delay=0&initial_workers=-3&response_timeout=%2B7&startup_timeout=8"
    )
    ask(app, "POST", f"/models?{query}")
    assert registry.registrations == [
        Registration("a+b.mar", "x", "h:f", "python3", 0, 0, -3, 7, 8)
    ]


@pytest.mark.parametrize("text", ["dd", "", "1.0", "99999999999", "+", "%D9%A1", "0x1"])
def test_integer_that_does_not_parse_is_not_given(
    ask: Any, app: Any, registry: FakeRegistry, text: str
) -> None:
    assert ask(app, "POST", f"/models?url=m.mar&batch_size={text}").status == 200
    assert registry.registrations[0].batch_size == -1


def test_json_body_of_register(ask: Any, app: Any, registry: FakeRegistry) -> None:
    body = b'{"url": "m.mar", "batch_size": "4", "synchronous": false, "initial_workers": 1.0}'
    headers = {"Content-Type": "application/json; charset=utf-8"}
    assert ask(app, "POST", "/models?url=ignored", body, headers).status == 202
    (registration,) = registry.registrations
    assert (registration.url, registration.batch_size) == ("m.mar", 4)
    # TorchServe: a sentinel that is used as it is
    assert registration.max_batch_delay == -10000


@pytest.mark.parametrize(
    ("body", "status", "kind"),
    [
        (b"", 500, "NullPointerException"),
        (b"null", 500, "NullPointerException"),
        (b"{", 500, "JsonSyntaxException"),
        (b"[]", 500, "JsonSyntaxException"),
        (b"[" * 100_000, 500, "JsonSyntaxException"),
        (b"\xff", 500, "JsonSyntaxException"),
        (b'{"url": "\\ud800"}', 500, "JsonSyntaxException"),
        (b'{"url": {}}', 500, "JsonSyntaxException"),
        (b'{"url": "m", "batch_size": "x"}', 500, "JsonSyntaxException"),
        (b'{"url": "m", "batch_size": 1.5}', 500, "JsonSyntaxException"),
        (b'{"url": "m", "synchronous": 1}', 500, "JsonSyntaxException"),
        (b'{"url": "m", "synchronous": {}}', 500, "JsonSyntaxException"),
        (b'{"url": "m", "batch_size": true}', 500, "JsonSyntaxException"),
        (b'{"url": "m", "batch_size": 9999999999}', 500, "JsonSyntaxException"),
        (b"{}", 400, "BadRequestException"),
    ],
)
def test_json_body_that_cannot_be(ask: Any, app: Any, body: bytes, status: int, kind: str) -> None:
    answer = ask(app, "POST", "/models", body, {"content-type": "application/json"})
    assert (answer.status, answer.json["type"]) == (status, kind)


def test_form_body_is_ignored(ask: Any, app: Any) -> None:
    headers = {"content-type": "application/x-www-form-urlencoded"}
    answer = ask(app, "POST", "/models", b"url=m.mar", headers)
    assert (answer.status, answer.json["message"]) == (400, "Parameter url is required.")


@pytest.mark.parametrize(
    ("failure", "status", "kind"),
    [
        (ArchiveNotFound("empty url"), 404, "ModelNotFoundException"),
        (ConflictStatus("already"), 409, "ConflictStatusException"),
    ],
)
def test_failure_to_register(
    ask: Any, app: Any, registry: FakeRegistry, failure: Exception, status: int, kind: str
) -> None:
    registry.failure = failure
    answer = ask(app, "POST", "/models?url=m.mar")
    assert answer.json == {"code": status, "type": kind, "message": str(failure)}


@pytest.mark.parametrize(("method", "path"), [("POST", "/models?url=m"), ("DELETE", "/models/m")])
def test_model_api_is_off_by_default(
    ask: Any, registry: FakeRegistry, method: str, path: str
) -> None:
    registry.add("m")
    app = management_app(registry, Metrics("host"), ApiSettings())  # type: ignore[arg-type]
    answer = ask(app, method, path)
    assert (answer.status, answer.json["type"]) == (405, "MethodNotAllowedException")
    assert answer.json["message"] == (
        "Requested method is not allowed, please refer to API document."
    )
    assert ask(app, "GET", "/models/m").status == 200


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/", 405),
        ("PUT", "/models", 405),
        ("DELETE", "/models", 405),
        ("POST", "/models/m", 405),
        ("PATCH", "/models/m/1.0", 405),
        ("POST", "/models/m/1.0/set-default", 405),
        ("GET", "/models/a/b/c", 404),
        ("PUT", "/models/m/1.0/set-default/x", 404),
        ("GET", "/Models", 404),
        ("GET", "//models", 404),
        ("GET", "/ping", 404),
        ("GET", "/models/none", 404),
        ("GET", "/models/", 200),
        ("GET", "/models/m/", 200),
        ("GET", "/models/m/1.0/set-default", 200),
    ],
)
def test_routes(
    ask: Any, app: Any, registry: FakeRegistry, method: str, path: str, status: int
) -> None:
    registry.add("m")
    assert ask(app, method, path).status == status


@pytest.mark.parametrize(
    ("query", "status", "text"),
    [
        ("", 202, "Processing worker updates..."),
        ("min_worker=2", 202, "Processing worker updates..."),
        ("min_worker=2&synchronous=true", 200, "Workers scaled to 2 for model: m"),
        ("min_worker=-1&max_worker=1&synchronous=true", 200, "Workers scaled to -1 for model: m"),
        ("min_worker=0&synchronous=true", 200, "Workers scaled to 0 for model: m"),
        (
            "min_worker=x&synchronous=true&model_version=1.0",
            200,
            "Workers scaled to 1 for model: m, version: 1.0",
        ),
    ],
)
def test_scale(
    ask: Any, app: Any, registry: FakeRegistry, query: str, status: int, text: str
) -> None:
    registry.add("m")
    answer = ask(app, "PUT", f"/models/m?{query}")
    assert (answer.status, answer.json["status"]) == (status, text)


def test_max_worker_is_min_worker_unless_given(ask: Any, app: Any, registry: FakeRegistry) -> None:
    model = registry.add("m")
    ask(app, "PUT", "/models/m?min_worker=3")
    assert (model.spec.min_workers, model.spec.max_workers) == (3, 3)


def test_scale_with_too_few_workers(ask: Any, app: Any, registry: FakeRegistry) -> None:
    registry.add("m").is_scaled = False
    answer = ask(app, "PUT", "/models/m?min_worker=2&synchronous=true")
    assert (answer.status, answer.json) == (206, {"status": "Workers scaling in progress..."})


@pytest.mark.parametrize("query", ["number_gpu=3", "timeout=-1", "timeout=0"])
def test_number_gpu_and_timeout_are_ignored(
    ask: Any, app: Any, registry: FakeRegistry, query: str
) -> None:
    registry.add("m")
    answer = ask(app, "PUT", f"/models/m?min_worker=1&synchronous=true&{query}")
    assert (answer.status, answer.json["status"]) == (200, "Workers scaled to 1 for model: m")


@pytest.mark.parametrize(
    ("content_type", "body"),
    [("application/json", b'{"min_worker": 2}'), ("application/x-www-form-urlencoded", b"a=%ZZ")],
)
def test_scale_reads_no_body(
    ask: Any, app: Any, registry: FakeRegistry, content_type: str, body: bytes
) -> None:
    model = registry.add("m")
    assert ask(app, "PUT", "/models/m", body, {"Content-Type": content_type}).status == 202
    assert model.spec.min_workers == 1


def test_scale_of_a_version(ask: Any, app: Any, registry: FakeRegistry) -> None:
    registry.add("m")
    registry.add("m", "2.0")
    answer = ask(app, "PUT", "/models/m/2.0?min_worker=1&synchronous=true&model_version=9")
    assert answer.json["status"] == "Workers scaled to 1 for model: m, version: 2.0"
    assert len(registry.get("m").workers) == 0


@pytest.mark.parametrize(
    ("target", "status", "kind", "message"),
    [
        (
            "/models/m?min_worker=2&max_worker=1",
            400,
            "BadRequestException",
            "max_worker cannot be less than min_worker.",
        ),
        (
            "/models/m?min_worker=-2&max_worker=-1",
            500,
            "IndexOutOfBoundsException",
            "Index -1 out of bounds for length 0 : max_worker must be 0 or more",
        ),
        ("/models/x", 404, "ModelNotFoundException", "Model not found: x"),
        (
            "/models/m/9",
            404,
            "ModelVersionNotFoundException",
            "Model version: 9 does not exist for model: m",
        ),
    ],
)
def test_scale_that_cannot_be(
    ask: Any, app: Any, registry: FakeRegistry, target: str, status: int, kind: str, message: str
) -> None:
    registry.add("m")
    answer = ask(app, "PUT", target)
    assert answer.json == {"code": status, "type": kind, "message": message}


@pytest.mark.parametrize(
    ("target", "version", "status", "kind"),
    [
        ("/models/m", "null", 500, "InternalServerException"),
        ("/models/m/1.0", "1.0", 507, "InternalServerException"),
        ("/models/m", "null", 408, "RequestTimeoutException"),
    ],
)
def test_scale_whose_worker_fails_keeps_the_model(
    ask: Any, app: Any, registry: FakeRegistry, target: str, version: str, status: int, kind: str
) -> None:
    registry.add("m").scale_status = status
    answer = ask(app, "PUT", f"{target}?min_worker=1&synchronous=true")
    assert (answer.status, answer.json["type"]) == (status, kind)
    assert answer.json["message"] == f"Failed to start workers for model m version: {version}"
    assert len(registry.get("m").workers) == 1


def test_describe(ask: Any, app: Any, registry: FakeRegistry) -> None:
    registry.add("m", loaded_at_startup=True).begin_scale(1, 1)
    answer = ask(app, "GET", "/models/m")
    assert answer.headers["content-type"] == "application/json"
    (described,) = answer.json
    worker = described["workers"][0]
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.098Z", worker.pop("startTime"))
    assert list(described) == [
        "modelName",
        "modelVersion",
        "modelUrl",
        "runtime",
        "minWorkers",
        "maxWorkers",
        "batchSize",
        "maxBatchDelay",
        "responseTimeout",
        "startupTimeout",
        "maxRetryTimeoutInSec",
        "clientTimeoutInMills",
        "parallelType",
        "parallelLevel",
        "deviceType",
        "continuousBatching",
        "useJobTicket",
        "useVenv",
        "stateful",
        "sequenceMaxIdleMSec",
        "sequenceTimeoutMSec",
        "maxNumSequence",
        "maxSequenceJobQueueSize",
        "loadedAtStartup",
        "workers",
        "jobQueueStatus",
    ]
    assert worker == {
        "id": "9000",
        "status": "READY",
        "memoryUsage": 0,
        "pid": 12345,
        "gpu": False,
        "gpuUsage": "N/A",
    }
    assert described["jobQueueStatus"] == {"remainingCapacity": 100, "pendingRequests": 0}
    assert (described["maxRetryTimeoutInSec"], described["loadedAtStartup"]) == (300, True)


def test_worker_that_is_not_ready_is_unloading(ask: Any, app: Any, registry: FakeRegistry) -> None:
    model = registry.add("m", device_ids=[0, 1])
    model.begin_scale(1, 1)
    model.workers[0].is_ready = False
    (described,) = ask(app, "GET", "/models/m").json
    assert described["workers"][0]["status"] == "UNLOADING"
    assert described["deviceIds"] == [0, 1]


def test_describe_all_versions(ask: Any, app: Any, registry: FakeRegistry) -> None:
    registry.add("m")
    registry.add("m", "2.0")
    versions = [one["modelVersion"] for one in ask(app, "GET", "/models/m/all").json]
    assert sorted(versions) == ["1.0", "2.0"]
    assert ask(app, "GET", "/models/x/all").status == 404


@pytest.mark.parametrize(
    ("body", "metadata"),
    [
        (b'{"a": 1}', {"a": 1}),
        (b'{"a": null, "b": {"c": null, "d": [null]}}', {"b": {"d": [None]}}),
        (b'{"a": NaN, "b": -Infinity}', {"a": "NaN", "b": "-Infinity"}),
        (b"[1]", {}),
        (b"null", {}),
        (b"text", {}),
        (b"[" * 100_000, {}),
        (b"", None),
        (b" \n", None),
    ],
)
def test_customized_description(
    ask: Any, app: Any, registry: FakeRegistry, body: bytes, metadata: Any
) -> None:
    model = registry.add("m")
    model.answer = Prediction("id", body, 201, "", {"X": "y"})
    answer = ask(app, "GET", "/models/m?customized=true")
    assert model.requests[0].headers["describe"] == "True"
    assert model.requests[0].parameters == []
    assert model.described
    assert answer.json[0].get("customizedMetadata") == metadata
    assert ("customizedMetadata" in answer.json[0]) == (metadata is not None)
    assert (answer.status, answer.reason, answer.headers["x"]) == (201, "", "y")
    assert answer.headers["content-type"] == "application/json"


def test_customized_description_without_workers(ask: Any, app: Any, registry: FakeRegistry) -> None:
    registry.add("m")
    answer = ask(app, "GET", "/models/m?customized=True")
    assert answer.json["message"] == (
        'Model "m" has no worker to serve describe request. '
        "Please use scale workers API to add workers."
    )


@pytest.mark.parametrize(
    ("query", "names", "token"),
    [
        ("", "abc", None),
        ("?limit=2", "ab", "2"),
        ("?limit=2&next_page_token=2", "c", None),
        ("?limit=3", "abc", "3"),
        ("?limit=0", "", "0"),
        ("?limit=-1", "abc", None),
        ("?limit=101", "abc", None),
        ("?next_page_token=-5", "abc", None),
        ("?next_page_token=99", "", None),
        ("?limit=x&next_page_token=1", "bc", None),
    ],
)
def test_list(
    ask: Any, app: Any, registry: FakeRegistry, query: str, names: str, token: str | None
) -> None:
    for name in "cab":
        registry.add(name)
    answer = ask(app, "GET", f"/models{query}").json
    assert answer["models"] == [{"modelName": n, "modelUrl": f"{n}.mar"} for n in names]
    assert answer.get("nextPageToken") == token


def test_set_default(ask: Any, app: Any, registry: FakeRegistry) -> None:
    registry.add("m")
    registry.add("m", "2.0")
    answer = ask(app, "PUT", "/models/m/2.0/set-default")
    assert answer.json["status"] == ('Default version successfully updated for model "m" to "2.0"')
    assert registry.get("m").spec.version == "2.0"
    answer = ask(app, "PUT", "/models/m/9/set-default")
    assert (answer.status, answer.json["type"]) == (404, "ModelVersionNotFoundException")
    assert answer.json["message"] == "Model version 9 does not exist for model m"


@pytest.mark.parametrize("path", ["/models/m", "/models/m/1.0", "/models/m/9/set-default"])
def test_unregister(ask: Any, app: Any, registry: FakeRegistry, path: str) -> None:
    registry.add("m")
    answer = ask(app, "DELETE", f"{path}?synchronous=false")
    assert (answer.status, answer.json) == (200, {"status": 'Model "m" unregistered'})
    assert not registry.models


@pytest.mark.parametrize(
    ("failure", "status"),
    [
        (InvalidModelVersion("Cannot remove default version for model m"), 403),
        (RequestTimeout("Timed out while cleaning resources: m"), 408),
    ],
)
def test_failure_to_unregister(
    ask: Any, app: Any, registry: FakeRegistry, failure: Exception, status: int
) -> None:
    registry.failure = failure
    answer = ask(app, "DELETE", "/models/m")
    assert (answer.status, answer.json["message"]) == (status, str(failure))


def test_query_may_not_have_endless_parameters(ask: Any, app: Any) -> None:
    assert ask(app, "GET", "/models?" + "a=1&" * 2000).status == 400
