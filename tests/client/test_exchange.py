"""Sealed predictions and receipts, through the client, against a stand-in that can do both wrongly.

Each test runs with `Client` and with `AsyncClient`.
"""

import hashlib
import ssl
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from attested import MODEL, AttestedServer, policy_for
from attested_http import HttpServer, Received, own_context
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from torchkeep.client import Client, receipt_of
from torchkeep.client.sealing import NotSealed, destination
from torchkeep.runtime.claims import ModelClaim
from torchkeep.runtime.identity import AttestedKey
from torchkeep.runtime.receipts import HEADER, Answered, Asked, Receipt, ReceiptError
from torchkeep.runtime.sealed_messages import (
    ANSWER_TYPE,
    REQUEST_TYPE,
    AnswerEnd,
    AnswerHead,
    AnswerSealer,
    InnerRequest,
    SealedMessageError,
    Session,
    key_id,
    open_request,
    session_id,
)

SECRET = b"what nobody else may see"
ANSWER = b"an answer"
Answer = tuple[int, dict[str, str], bytes]


@dataclass
class SealedServer:
    """Opens what is sealed, and seals and signs an answer; `tamper` is done to what it sends."""

    identity: AttestedKey = field(default_factory=AttestedKey)
    hpke_key: X25519PrivateKey = field(default_factory=X25519PrivateKey.generate)
    opened: list[InnerRequest] = field(default_factory=list)
    sessions: dict[bytes, Session] = field(default_factory=dict)
    pieces: tuple[bytes, ...] = (ANSWER,)
    status: int = 201
    model: ModelClaim = MODEL
    tamper: Callable[[bytes], bytes] = bytes
    forge: Callable[[Receipt], Receipt | None] = lambda receipt: receipt

    def attested(self) -> AttestedServer:
        public_key = self.hpke_key.public_key().public_bytes_raw()
        return AttestedServer(key=self.identity.private_key, hpke_key=public_key)

    def predict(self, request: Received) -> Answer:
        if request.headers["content-type"] != REQUEST_TYPE:
            return self._plain(request)
        parts = urlsplit(request.path)
        assert parts.query == ""
        name = key_id(self.hpke_key.public_key().public_bytes_raw())
        there = destination(request.method, parts.path)
        session = self.sessions.get(session_id(request.body) or b"")
        if session is not None:
            inner = session.open(there, request.body)
        elif request.body[1:9] != name:
            return 421, {}, b"another key"
        else:
            inner = open_request(self.hpke_key, name, there, request.body)
        if inner.wants_session:
            self.sessions[inner.request_id] = Session(inner)
        self.opened.append(inner)
        headers = {name.decode(): value.decode("latin-1") for name, value in inner.headers}
        asked = Asked(
            request.method, there.path, inner.query, headers["content-type"], digest(inner.body)
        )
        sealer = AnswerSealer(inner.response_key, inner.request_id)
        head = AnswerHead(self.status, "Fine", [(b"content-type", b"text/plain")])
        receipt = self._receipt(headers.get(HEADER), asked)
        end = AnswerEnd([(HEADER.encode(), receipt.encode())] if receipt else [])
        sent = sealer.begin(head) + b"".join(sealer.body(piece) for piece in self.pieces)
        return 200, {"Content-Type": ANSWER_TYPE}, self.tamper(sent + sealer.end(b"", end))

    def _plain(self, request: Received) -> Answer:
        parts = urlsplit(request.path)
        there = destination(request.method, parts.path).path
        kind = request.headers["content-type"]
        asked = Asked(request.method, there, parts.query, kind, digest(request.body))
        receipt = self._receipt(request.headers.get(HEADER), asked)
        extra = {HEADER: receipt} if receipt else {}
        return self.status, {"Content-Type": "text/plain", **extra}, self.tamper(self._body())

    def _receipt(self, nonce: str | None, asked: Asked) -> str | None:
        if nonce is None:
            return None
        answered = Answered(self.status, "text/plain", digest(self._body()))
        receipt = self.forge(Receipt(nonce, "id", 1, self.model, asked, answered))
        return None if receipt is None else receipt.signed(self.identity)

    def _body(self) -> bytes:
        return b"".join(self.pieces)


def digest(body: bytes) -> bytes:
    return hashlib.sha256(body).digest()


@pytest.fixture
def sealed() -> SealedServer:
    return SealedServer()


@pytest.fixture
def server(sealed: SealedServer) -> Iterator[HttpServer]:
    """Over plain http, as behind a proxy that ends TLS."""
    standin = HttpServer(sealed.attested(), lambda number: None, answer_prediction=sealed.predict)
    with standin.listening() as listening:
        yield listening


@pytest.fixture
def client(client_of: Callable[..., Any], server: HttpServer) -> Iterator[Any]:
    options = {"sealed": True, "receipts": True, "token": "token"}
    with client_of(server.url, policy_for(server.attested), **options) as client:
        yield client


def test_prediction_is_sealed_and_its_answer_opened(
    client: Any, server: HttpServer, sealed: SealedServer
) -> None:
    response = client.predict(
        "m", SECRET, version="1.0", content_type="image/png", headers={"X-Of-Mine": "mine"}
    )
    assert (response.status_code, response.content) == (201, ANSWER)
    assert response.headers["content-type"] == "text/plain"
    receipt = receipt_of(response)
    assert receipt is not None
    assert receipt.model == MODEL
    outside, [inner] = server.received[-1], sealed.opened
    assert outside.path == "/predictions/m/1.0"
    assert outside.headers["content-type"] == REQUEST_TYPE
    assert outside.headers["authorization"] == "Bearer token"
    assert SECRET not in outside.body
    assert not {"x-of-mine", HEADER} & set(outside.headers)
    assert inner.body == SECRET
    inside = dict(inner.headers)
    assert inside[b"content-type"] == b"image/png"
    assert inside[b"x-of-mine"] == b"mine"
    assert not {b"authorization", b"host", b"content-length"} & set(inside)


def test_each_request_has_its_own_keys(client: Any, sealed: SealedServer) -> None:
    for _ in range(3):
        client.predict("m", SECRET, content_type="text/plain")
    assert len({inner.response_key for inner in sealed.opened}) == 3
    assert len({inner.request_id for inner in sealed.opened}) == 3


def test_sealed_answer_in_pieces(client: Any, sealed: SealedServer) -> None:
    sealed.pieces = (b"first ", b"x" * 100_000, b"last")
    with client.stream("m", SECRET, content_type="text/plain") as response:
        assert response.read() == b"".join(sealed.pieces)
        assert receipt_of(response) is not None


def test_query_of_a_prediction_is_sealed_too(server: HttpServer, sealed: SealedServer) -> None:
    policy = policy_for(server.attested)
    with Client(server.url, policy, sealed=True, receipts=True) as client:
        headers = {"Content-Type": "text/plain"}
        client.http.post("/predictions/m", params={"a": "b c"}, content=b"x", headers=headers)
    assert sealed.opened[0].query == "a=b+c"
    assert server.received[-1].path == "/predictions/m"


@pytest.mark.parametrize(
    "tamper",
    [
        lambda sent: b"",
        lambda sent: sent[:5],
        lambda sent: sent[:-1],
        lambda sent: sent[: len(sent) // 2],
        lambda sent: sent + b"\0",
        lambda sent: sent[:-1] + bytes([sent[-1] ^ 1]),
        lambda sent: sent[:30] + bytes([sent[30] ^ 1]) + sent[31:],
    ],
    ids=["empty", "headless", "cut", "halved", "longer", "end flipped", "head flipped"],
)
def test_answer_that_was_changed_is_refused(
    client: Any, sealed: SealedServer, tamper: Callable[[bytes], bytes]
) -> None:
    sealed.tamper = tamper
    with pytest.raises(SealedMessageError):
        client.predict("m", SECRET, content_type="text/plain")


def test_answer_of_another_request_is_refused(client: Any, sealed: SealedServer) -> None:
    kept: list[bytes] = []
    sealed.tamper = lambda sent: kept.append(sent) or kept[0]  # type: ignore[func-returns-value]
    client.predict("m", b"one", content_type="text/plain")
    with pytest.raises(SealedMessageError):
        client.predict("m", b"two", content_type="text/plain")


def test_answer_in_the_clear_is_refused(client: Any, server: HttpServer) -> None:
    server.answer_prediction = lambda request: (200, {"Content-Type": "text/plain"}, b"a lie")
    with pytest.raises(NotSealed, match="its status is 200: a lie"):
        client.predict("m", SECRET, content_type="text/plain")
    server.answer_prediction = lambda request: (503, {}, b"busy")
    with pytest.raises(NotSealed, match="its status is 503: busy"):
        client.predict("m", SECRET, content_type="text/plain")


def test_predictions_after_the_first_are_in_its_session(client: Any, sealed: SealedServer) -> None:
    for _ in range(3):
        client.predict("m", SECRET, content_type="text/plain")
    assert [request.wants_session for request in sealed.opened] == [True, False, False]


def test_server_with_a_new_key_is_verified_and_asked_anew(
    client: Any, server: HttpServer, sealed: SealedServer
) -> None:
    client.predict("m", SECRET, content_type="text/plain")
    sealed.hpke_key = X25519PrivateKey.generate()
    sealed.sessions.clear()
    server.attested = sealed.attested()
    assert client.predict("m", SECRET, content_type="text/plain").status_code == 201
    assert server.paths() == [
        *["/attestation", "/predictions/m"],
        # In its session, by HPKE, and then for the new key.
        *["/predictions/m", "/predictions/m", "/attestation", "/predictions/m"],
    ]


def test_session_that_the_server_let_go_of_costs_no_evidence(
    client: Any, server: HttpServer, sealed: SealedServer
) -> None:
    client.predict("m", SECRET, content_type="text/plain")
    sealed.sessions.clear()
    for _ in range(2):
        assert client.predict("m", SECRET, content_type="text/plain").status_code == 201
    assert server.paths() == ["/attestation", *["/predictions/m"] * 4]
    assert [request.wants_session for request in sealed.opened] == [True, True, False]


def test_proxy_that_says_the_key_is_unknown_gets_no_further(
    client: Any, server: HttpServer
) -> None:
    server.answer_prediction = lambda request: (421, {}, b"")
    with pytest.raises(NotSealed):
        client.predict("m", SECRET, content_type="text/plain")
    assert server.paths().count("/predictions/m") == 2


def test_proxy_that_says_so_in_a_session_gets_no_further(
    client: Any, server: HttpServer, sealed: SealedServer
) -> None:
    client.predict("m", SECRET, content_type="text/plain")
    server.answer_prediction = lambda request: (421, {}, b"")
    with pytest.raises(NotSealed):
        client.predict("m", SECRET, content_type="text/plain")
    # In the session, by HPKE, and for the key that new evidence names.
    assert server.paths().count("/predictions/m") == 1 + 3
    assert server.paths().count("/attestation") == 2


@pytest.mark.parametrize(
    ("forge", "reason"),
    [
        (lambda receipt: None, "no receipt"),
        (lambda receipt: replace(receipt, nonce="old"), "another nonce"),
        (lambda receipt: replace(receipt, asked=replace(receipt.asked, path="/x")), "request"),
        (
            lambda receipt: replace(receipt, answered=replace(receipt.answered, status=200)),
            "another answer",
        ),
        (
            lambda receipt: replace(receipt, model=ModelClaim("echo", "1.0", bytes(32))),
            "none of those that may answer",
        ),
    ],
)
@pytest.mark.parametrize("is_sealed", [True, False], ids=["sealed", "plain"])
def test_wrong_receipt_is_refused(
    client_of: Callable[..., Any],
    sealed: SealedServer,
    tmp_path: Path,
    is_sealed: bool,
    forge: Callable[[Receipt], Receipt | None],
    reason: str,
) -> None:
    with tls_server(sealed, tmp_path).listening() as server:
        policy = policy_for(server.attested)
        with client_of(server.url, policy, sealed=is_sealed, receipts=True) as client:
            response = client.predict("m", SECRET, content_type="text/plain")
            assert receipt_of(response).model == MODEL  # type: ignore[union-attr]
            sealed.forge = forge
            with pytest.raises(ReceiptError, match=reason):
                client.predict("m", SECRET, content_type="text/plain")
            sealed.forge = lambda receipt: None
            sealed.status = 404  # the server's own errors have no receipt
            response = client.predict("m", SECRET, content_type="text/plain")
            assert (response.status_code, receipt_of(response)) == (404, None)


def tls_server(sealed: SealedServer, tmp_path: Path) -> HttpServer:
    attested = sealed.attested()
    context = own_context(attested, tmp_path / "tls.pem")
    return HttpServer(attested, lambda number: context, answer_prediction=sealed.predict)


def test_answer_that_is_not_what_was_signed_is_refused(
    client_of: Callable[..., Any], sealed: SealedServer, tmp_path: Path
) -> None:
    sealed.tamper = lambda body: b"another answer"
    with tls_server(sealed, tmp_path).listening() as server:
        policy = policy_for(server.attested)
        with (
            client_of(server.url, policy, receipts=True) as client,
            pytest.raises(ReceiptError, match="another answer"),
        ):
            client.predict("m", SECRET, content_type="text/plain")


def test_receipt_of_any_model_will_do_where_the_policy_takes_any(
    sealed: SealedServer, tmp_path: Path
) -> None:
    sealed.model = ModelClaim("other", "3.0", bytes(32))
    with tls_server(sealed, tmp_path).listening() as server:
        policy = policy_for(server.attested, models=None)
        with Client(server.url, policy, receipts=True) as client:
            response = client.predict("m", SECRET, content_type="text/plain")
            assert receipt_of(response).model == sealed.model  # type: ignore[union-attr]


def test_what_cannot_be_sealed_is_not_sent_where_it_can_be_read(
    client: Any, server: HttpServer
) -> None:
    for send in (client.ping, client.models):
        with pytest.raises(ValueError, match="only predictions go there"):
            send()
    assert server.received == []


def test_what_cannot_be_sealed_is_sent_to_the_attested_listener(
    client_of: Callable[..., Any], sealed: SealedServer, tmp_path: Path
) -> None:
    with tls_server(sealed, tmp_path).listening() as server:
        server.answer_prediction = None
        with client_of(server.url, policy_for(server.attested), sealed=True) as client:
            assert client.ping().status_code == 200


def test_path_of_a_proxy_is_not_the_servers(
    client_of: Callable[..., Any], sealed: SealedServer, server: HttpServer
) -> None:
    def without_prefix(request: Received) -> Answer:
        return sealed.predict(replace(request, path=request.path.removeprefix("/models-of-a")))

    server.answer_prediction = without_prefix
    server.answer_attestation = lambda nonce: (200, {}, server.attested.document(nonce))
    url = f"{server.url}/models-of-a/"
    with client_of(url, policy_for(server.attested), sealed=True, receipts=True) as client:
        assert client.predict("m", SECRET, content_type="text/plain").status_code == 201
    assert server.paths() == ["/models-of-a/attestation", "/models-of-a/predictions/m"]


def test_token_is_not_sent_where_it_can_be_read(
    client_of: Callable[..., Any], sealed: SealedServer
) -> None:
    policy = policy_for(sealed.attested())
    with pytest.raises(ValueError, match="the token could be read"):
        client_of("http://192.0.2.1", policy, sealed=True, token="token")
    with pytest.raises(ValueError, match="sealed=True"):
        client_of("https://192.0.2.1", policy, proxy_tls=ssl.create_default_context())
