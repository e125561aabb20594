"""The inference port, asked sealed: what is bound, what is sealed in return, what is signed."""

import json
from collections.abc import Callable
from typing import Any

import pytest

from torchkeep.client.receipts import check_receipt
from torchkeep.client.sealing import NotSealed, OpenedAnswer, SealedCall, Sealer
from torchkeep.frontend.app import ApiSettings, inference_app
from torchkeep.frontend.errors import ModelNotFound, WorkerFailed
from torchkeep.frontend.jobs import Job
from torchkeep.frontend.metrics import Metrics
from torchkeep.frontend.request_opener import RequestOpener
from torchkeep.frontend.responses import Cors
from torchkeep.frontend.sealed_requests import SealedRequests
from torchkeep.runtime.claims import ModelClaim
from torchkeep.runtime.identity import AttestedKey, HpkeKey
from torchkeep.runtime.messages import Prediction, RequestInput
from torchkeep.runtime.receipts import Answered, Asked, body_digest, read_receipt
from torchkeep.runtime.sealed_messages import ANSWER_TYPE, REQUEST_TYPE

KEY, HPKE_KEY = AttestedKey(), HpkeKey()
CLAIM = ModelClaim("m", "1.0", b"d" * 32)
RECEIPT = "x-torchkeep-receipt"


class Model:
    """Answers with what it got, or as it is told."""

    claim = CLAIM

    def __init__(self) -> None:
        self.requests: list[RequestInput] = []
        self.pieces: list[bytes] = []
        self.error: WorkerFailed | None = None

    def submit(self, request: RequestInput, version: str | None = None) -> Job:
        self.requests.append(request)
        job = Job(request, version or "default")
        for piece in self.pieces:
            job.add_piece(Prediction(request.request_id, piece))
        if self.error is not None:
            job.fail(self.error)
        else:
            body = b"|".join(bytes(parameter.value) for parameter in request.parameters)
            job.answer(Prediction(request.request_id, body, headers={"content-type": "text/own"}))
        return job


class Registry:
    only_startup_name = None

    def __init__(self) -> None:
        self.model = Model()

    def get(self, name: str, version: str | None = None) -> Model:
        if name != "m":
            raise ModelNotFound(name)
        return self.model


@pytest.fixture
def registry() -> Registry:
    return Registry()


@pytest.fixture
def metrics() -> Metrics:
    return Metrics("host")


@pytest.fixture
def app(registry: Registry, metrics: Metrics) -> Any:
    opener = RequestOpener(SealedRequests(HPKE_KEY), KEY)
    settings = ApiSettings(opener=opener, cors=Cors(origin="http://a"))
    return inference_app(registry, metrics, settings)  # type: ignore[arg-type]


@pytest.fixture
def sealer() -> Sealer:
    return Sealer(HPKE_KEY.public_key)


@pytest.fixture
def send(ask: Any, app: Any) -> Callable[..., OpenedAnswer]:
    def send_one(call: SealedCall, method: str = "POST", path: str = "") -> OpenedAnswer:
        headers = {"Content-Type": call.content_type, "X-Outer": "seen by all"}
        answer = ask(app, method, path or call.path, call.body, headers)
        return call.opened(answer.status, answer.headers["content-type"], answer.body)

    return send_one


def test_handler_gets_what_was_sealed_and_nothing_else(
    sealer: Sealer, send: Callable[..., OpenedAnswer], registry: Registry
) -> None:
    headers = [(b"Content-Type", b"text/x"), (b"X-Inner", b"secret")]
    answer = send(sealer.seal("POST", "/predictions/m", b"body", headers))
    assert (answer.status, answer.body) == (200, b"body")
    assert answer.header("Content-Type") == "text/own"
    [request] = registry.model.requests
    assert {name.lower() for name in request.headers} == {
        "content-type",
        "content-length",
        "x-inner",
        "explain",
        "url_path",
    }
    assert request.headers["content-length"] == "4"
    assert request.parameters[0].content_type == "text/x"
    assert answer.header("x-request-id") == request.request_id


def test_outside_nothing_is_told(
    ask: Any, app: Any, sealer: Sealer, registry: Registry, metrics: Metrics
) -> None:
    registry.model.error = WorkerFailed(507, "out of memory")
    call = sealer.seal("POST", "/predictions/m", b"body")
    answer = ask(app, "POST", call.path, call.body, {"Content-Type": REQUEST_TYPE})
    assert (answer.status, answer.headers["content-type"]) == (200, ANSWER_TYPE)
    assert answer.headers["access-control-allow-origin"] == "http://a"
    assert answer.headers["cache-control"].startswith("no-cache")
    assert b"memory" not in answer.body
    opened = call.opened(200, ANSWER_TYPE, answer.body)
    assert (opened.status, json.loads(opened.body)["message"]) == (507, "out of memory")
    assert opened.header("access-control-allow-origin") is None
    assert 'Requests5XX{Level="Host",Hostname="host",} 1.0' in metrics.text().decode()


@pytest.mark.parametrize(
    ("path", "query", "headers", "body", "values"),
    [
        ("/invocations", "model_name=m&a=b", [], b"x", [b"m", b"b", b"x"]),
        ("/models/m/invoke", "a=b", [], b"x", [b"b", b"x"]),
        ("/m/predict", "", [], b"x", [b"x"]),
        ("/m/2.0/predict", "", [], b"x", [b"x"]),
        ("/explanations/m", "", [], b"x", [b"x"]),
        ("/v1/models/m:predict", "", [], b"x", [b"x"]),
        ("/v2/models/m/infer", "", [], b"x", [b"x"]),
        ("/predictions/m/2.0/way%20out", "", [], b"x", [b"x"]),
        ("/predictions/%6d/", "", [], b"x", [b"x"]),
        (
            "/predictions/m",
            "",
            [(b"content-type", b"application/x-www-form-urlencoded")],
            b"a=1&b=2&",
            [b"1", b"2"],
        ),
        (
            "/predictions/m",
            "",
            [(b"Content-Type", b"multipart/form-data; boundary=b")],
            b'--b\r\nContent-Disposition: form-data; name="f"\r\n\r\n1\r\n--b--\r\n',
            [b"1"],
        ),
    ],
)
def test_every_route_that_ends_in_a_prediction(
    path: str,
    query: str,
    headers: list[tuple[bytes, bytes]],
    body: bytes,
    values: list[bytes],
    sealer: Sealer,
    send: Callable[..., OpenedAnswer],
    registry: Registry,
) -> None:
    answer = send(sealer.seal("POST", path, body, headers, query))
    assert answer.status == 200, answer.body
    [request] = registry.model.requests
    assert [bytes(parameter.value) for parameter in request.parameters] == values


def test_other_methods_are_bound_too(sealer: Sealer, send: Callable[..., OpenedAnswer]) -> None:
    assert send(sealer.seal("PUT", "/predictions/m", b"x"), "PUT").body == b"x"
    with pytest.raises(NotSealed) as caught:
        send(sealer.seal("PUT", "/predictions/m", b"x"), "POST")
    assert caught.value.status == 400


def test_errors_behind_the_seal_are_sealed(
    sealer: Sealer, send: Callable[..., OpenedAnswer]
) -> None:
    answer = send(sealer.seal("POST", "/predictions/none", b"x"))
    assert (answer.status, json.loads(answer.body)["type"]) == (404, "ModelNotFoundException")
    bad_query = send(sealer.seal("POST", "/invocations", b"x", query="a=%ZZ"))
    assert json.loads(bad_query.body)["type"] == "IllegalArgumentException"


NO_REQUEST = (400, "SealedRequestException")
UNKNOWN = (421, "UnknownKeyException")


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b"", NO_REQUEST),
        (b"garbage", NO_REQUEST),
        (b"\x01" * 100, UNKNOWN),
        (b"\x02" * 100, UNKNOWN),
        (b"\x02" * 28, NO_REQUEST),
    ],
)
def test_errors_before_it_is_open_are_plain(
    ask: Any, app: Any, body: bytes, expected: tuple[int, str]
) -> None:
    answer = ask(app, "POST", "/predictions/m", body, {"Content-Type": REQUEST_TYPE})
    assert answer.headers["content-type"] == "application/json"
    assert (answer.status, answer.json["type"]) == expected


def test_a_query_outside_is_refused(ask: Any, app: Any, sealer: Sealer) -> None:
    """A proxy could add it, and the handler would take it for the client's."""
    call = sealer.seal("POST", "/invocations", b"x", query="model_name=m")
    answer = ask(app, "POST", "/invocations?b=c", call.body, {"Content-Type": REQUEST_TYPE})
    assert (answer.status, answer.json["type"]) == (400, "SealedRequestException")


def test_without_keys_that_anybody_can_know_nothing_is_special(
    ask: Any, registry: Registry, metrics: Metrics
) -> None:
    app = inference_app(registry, metrics, ApiSettings())  # type: ignore[arg-type]
    headers = {"Content-Type": REQUEST_TYPE, RECEIPT: "fresh"}
    answer = ask(app, "POST", "/predictions/m", b"whatever", headers)
    assert (answer.status, answer.body) == (200, b"whatever")
    assert RECEIPT not in answer.headers


def test_a_receipt_of_a_plain_answer(ask: Any, app: Any) -> None:
    headers = {"Content-Type": "image/jpeg", "X-Torchkeep-Receipt": "fresh-1"}
    answer = ask(app, "POST", "/predictions/m?a=b", b"body", headers)
    receipt = check_receipt(
        answer.headers[RECEIPT],
        KEY.public_key,
        nonce="fresh-1",
        asked=Asked("POST", "/predictions/m", "a=b", "image/jpeg", body_digest(b"body")),
        answered=Answered(200, "text/own", body_digest(b"body")),
        models=[CLAIM],
    )
    assert receipt.request_id == answer.headers["x-request-id"]
    assert RECEIPT not in ask(app, "POST", "/predictions/m", b"body").headers


@pytest.mark.parametrize("nonce", ["", "a b", "x" * 129, "ä"])
def test_a_bad_nonce(ask: Any, app: Any, nonce: str) -> None:
    answer = ask(app, "POST", "/predictions/m", b"body", {RECEIPT: nonce})
    assert (answer.status, answer.json["type"]) == (400, "BadRequestException")
    assert RECEIPT not in answer.headers


def test_the_servers_own_answers_have_no_receipt(ask: Any, app: Any, registry: Registry) -> None:
    assert RECEIPT not in ask(app, "POST", "/predictions/none", b"", {RECEIPT: "n"}).headers
    registry.model.error = WorkerFailed(500, "no")
    assert RECEIPT not in ask(app, "POST", "/predictions/m", b"", {RECEIPT: "n"}).headers


def test_a_receipt_of_a_sealed_answer_is_sealed(
    sealer: Sealer, send: Callable[..., OpenedAnswer]
) -> None:
    headers = [(b"Content-Type", b"text/x"), (b"X-Torchkeep-Receipt", b"fresh-2")]
    answer = send(sealer.seal("POST", "/invocations", b"body", headers, "model_name=m"))
    check_receipt(
        answer.receipt,
        KEY.public_key,
        nonce="fresh-2",
        asked=Asked("POST", "/invocations", "model_name=m", "text/x", body_digest(b"body")),
        answered=Answered(200, "text/own", body_digest(answer.body)),
        models=[CLAIM],
    )


def test_a_sealed_stream_ends_with_its_receipt(
    sealer: Sealer, send: Callable[..., OpenedAnswer], registry: Registry
) -> None:
    registry.model.pieces = [b"one ", b"two "]
    headers = [(b"X-Torchkeep-Receipt", b"fresh-3")]
    answer = send(sealer.seal("POST", "/predictions/m", b"three", headers))
    assert (answer.status, answer.body) == (200, b"one two three")
    assert answer.header("ts_stream_next") == "true"
    assert answer.receipt is not None
    receipt = read_receipt(answer.receipt, KEY.public_key)
    assert receipt.answered == Answered(200, "", body_digest(b"one two three"))
    assert send(sealer.seal("POST", "/predictions/m", b"three")).receipt is None


def test_a_plain_stream_has_no_place_for_a_receipt(ask: Any, app: Any, registry: Registry) -> None:
    registry.model.pieces = [b"one ", b"two "]
    answer = ask(app, "POST", "/predictions/m", b"three", {RECEIPT: "fresh"})
    assert answer.body == b"one two three"
    assert RECEIPT not in answer.headers
