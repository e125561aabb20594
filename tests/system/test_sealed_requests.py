"""Sealed requests and receipts of a real server: what they promise, and who attacks them."""

import base64
import contextlib
import json
import secrets
import ssl
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPConnection, HTTPSConnection
from pathlib import Path
from typing import Any

import pytest
from sealing import mar_bytes
from tls_proxy import TlsProxy

from torchkeep.client.receipts import check_receipt
from torchkeep.client.sealing import NotSealed, OpenedAnswer, SealedCall, Sealer, whole
from torchkeep.runtime.claims import Claims, parse_claims
from torchkeep.runtime.identity import HpkeKey
from torchkeep.runtime.receipts import Answered, Asked, body_digest
from torchkeep.runtime.sealed_messages import REQUEST_TYPE, AnswerCut, SealedMessageError

# Answers with the body in capitals; a header `pieces` asks for a stream, `sleep` for patience.
HANDLER = """
import time
from ts.handler_utils.utils import send_intermediate_predict_response

def handle(data, context):
    if data is None:
        return
    headers = context.get_all_request_header(0)
    time.sleep(float(headers.get("sleep", 0)))
    for number in range(int(headers.get("pieces", 0))):
        send_intermediate_predict_response(["piece "], context.request_ids, "", 200, context)
    if "raise" in headers:
        raise RuntimeError("no")
    names = ",".join(sorted(headers))
    context.set_response_header(0, "x-seen", names)
    return [bytes(row.get("body") or row.get("field") or b"").upper() for row in data]
"""
ARCHIVES = {
    "m.mar": mar_bytes("m", "1.0", {"h.py": HANDLER}),
    "m2.mar": mar_bytes("m", "2.0", {"h.py": HANDLER}),
    "n.mar": mar_bytes("n", "1.0", {"h.py": HANDLER}),
}
PATH = "/predictions/m/1.0"
MANY = 64


class Attested:
    """A running server, and what its evidence says."""

    def __init__(self, server: Any, tls_address: str) -> None:
        self.server = server
        self.address = server.inference.removeprefix("http://")
        self.tls_address = tls_address
        nonce = base64.urlsafe_b64encode(secrets.token_bytes(32)).decode().rstrip("=")
        status, _, body = server.request("GET", f"/attestation?nonce={nonce}")
        assert status == 200, body
        document = json.loads(body)
        self.claims: Claims = parse_claims(base64.b64decode(document["claims"]))
        self.public_key = base64.b64decode(document["public_key"])
        self.sealer = Sealer(self.claims.hpke_key)

    def seal(self, body: bytes = b"body", path: str = PATH, **options: Any) -> SealedCall:
        """By HPKE, whatever came before."""
        return Sealer(self.claims.hpke_key).seal("POST", path, body, **options)

    def send(
        self,
        body: bytes,
        path: str = PATH,
        method: str = "POST",
        proxy: TlsProxy | None = None,
        content_type: str = REQUEST_TYPE,
    ) -> tuple[int, str, bytes]:
        connection = HTTPConnection(self.address, timeout=60)
        if proxy is not None:
            address = proxy.url.removeprefix("https://")
            connection = HTTPSConnection(address, context=proxy.known_by, timeout=60)
        with contextlib.closing(connection):
            connection.request(method, path, body, {"Content-Type": content_type})
            response = connection.getresponse()
            return response.status, response.headers["content-type"], response.read()

    def ask(self, call: SealedCall, **options: Any) -> OpenedAnswer:
        return call.opened(*self.send(call.body, call.path, **options))

    def refusal(self, body: bytes, path: str = PATH, method: str = "POST") -> tuple[int, str]:
        """Status and type of an answer that anybody can read."""
        status, content_type, answer = self.send(body, path, method)
        assert content_type == "application/json"
        return status, json.loads(answer)["type"]


@pytest.fixture(scope="module")
def attested(
    shared_server_factory: Callable[..., Any],
    tmp_path_factory: pytest.TempPathFactory,
    free_port: Callable[[], int],
) -> Attested:
    store = tmp_path_factory.mktemp("store")
    for name, content in ARCHIVES.items():
        (store / name).write_bytes(content)
    port = free_port()
    config = {
        "attested_tls": "true",
        "attested_address": f"https://127.0.0.1:{port}",
        "default_workers_per_model": "1",
        "job_queue_size": "1000",
    }
    args = ["--insecure-simulated-tee"]
    server = shared_server_factory(list(ARCHIVES), store, config, args)
    server.wait_until_ready("m", "n")
    return Attested(server, f"127.0.0.1:{port}")


NOT_OPENED = (400, "SealedRequestException")


def test_a_sealed_prediction(attested: Attested) -> None:
    headers = [(b"Content-Type", b"application/x"), (b"X-Inner", b"1")]
    answer = attested.ask(attested.seal(b"body", headers=headers))
    assert (answer.status, answer.body) == (200, b"BODY")
    seen = answer.header("x-seen")
    assert seen is not None
    assert "X-Inner" in seen.split(",")
    assert "Host" not in seen.split(",")


@pytest.mark.parametrize(
    ("path", "query"),
    [
        ("/predictions/m", ""),
        ("/predictions/m/2.0/more", ""),
        ("/v1/models/m:predict", ""),
        ("/v2/models/m/infer", ""),
        ("/models/m/invoke", ""),
        ("/m/1.0/predict", ""),
        ("/invocations", "model_name=m"),
    ],
)
def test_every_route_that_ends_in_a_prediction(attested: Attested, path: str, query: str) -> None:
    assert attested.ask(attested.seal(b"body", path, query=query)).body == b"BODY"


def test_a_form_inside(attested: Attested) -> None:
    headers = [(b"Content-Type", b"multipart/form-data; boundary=b")]
    form = b'--b\r\nContent-Disposition: form-data; name="field"\r\n\r\nvalue\r\n--b--\r\n'
    assert attested.ask(attested.seal(form, headers=headers)).body == b"VALUE"


def test_a_session(attested: Attested) -> None:
    sealer = Sealer(attested.claims.hpke_key)
    for number in range(3):
        call = sealer.seal("POST", PATH, b"body")
        assert call.is_in_session == (number > 0)
        assert attested.ask(call).body == b"BODY"
        assert attested.refusal(call.body) == (409, "ReplayedRequestException")


def test_errors_of_the_server_are_sealed(attested: Attested) -> None:
    answer = attested.ask(attested.seal(path="/predictions/none"))
    assert (answer.status, json.loads(answer.body)["type"]) == (404, "ModelNotFoundException")
    raised = attested.ask(attested.seal(headers=[(b"raise", b"1")]))
    assert (raised.status, raised.receipt) == (503, None)


# Attacks on the request, each with a request that would have opened.


def test_replayed(attested: Attested) -> None:
    call = attested.seal()
    assert attested.ask(call).body == b"BODY"
    assert attested.refusal(call.body) == (409, "ReplayedRequestException")


def test_replayed_at_another_port(attested: Attested) -> None:
    """The attested listener has the same keys, and the same memory."""
    call = attested.seal()
    assert attested.ask(call).body == b"BODY"
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    connection = HTTPSConnection(attested.tls_address, context=context, timeout=60)
    with contextlib.closing(connection):
        connection.request("POST", PATH, call.body, {"Content-Type": call.content_type})
        assert connection.getresponse().status == 409


@pytest.mark.parametrize(
    ("path", "method"),
    [
        ("/predictions/n/1.0", "POST"),  # another model
        ("/predictions/m/2.0", "POST"),  # another version
        ("/predictions/m", "POST"),
        ("/explanations/m/1.0", "POST"),  # another path
        ("/predictions/m/1.0/more", "POST"),
        ("/predictions/m/1.0/", "POST"),
        ("/m/1.0/predict", "POST"),
        ("/invocations", "POST"),
        (PATH, "PUT"),  # another method
        (PATH + "?url_path=x", "POST"),  # with a query of the attacker's
    ],
)
def test_sent_elsewhere(attested: Attested, path: str, method: str) -> None:
    call = attested.seal()
    assert attested.refusal(call.body, path, method) == NOT_OPENED
    # It was not opened, so nothing is lost: the client's own still counts.
    assert attested.ask(call).body == b"BODY"


def test_every_flipped_byte(attested: Attested) -> None:
    body = bytes(attested.seal(b"x").body)
    address = attested.server.inference.removeprefix("http://")
    connection = HTTPConnection(address, timeout=60)
    with contextlib.closing(connection):
        for position in range(len(body)):
            changed = bytearray(body)
            changed[position] ^= 1 << position % 8
            connection.request("POST", PATH, bytes(changed), {"Content-Type": REQUEST_TYPE})
            response = connection.getresponse()
            response.read()
            assert response.status == (421 if 1 <= position <= 8 else 400), position


@pytest.mark.parametrize("off_s", [-61.0, -3600.0, 61.0, 1e9])
def test_of_another_time(attested: Attested, off_s: float) -> None:
    sealer = Sealer(attested.claims.hpke_key, lambda: time.time() + off_s)
    call = sealer.seal("POST", PATH, b"body")
    assert attested.refusal(call.body) == (400, "StaleRequestException")


def test_for_another_key(attested: Attested) -> None:
    call = Sealer(HpkeKey().public_key).seal("POST", PATH, b"body")
    assert attested.refusal(call.body) == (421, "UnknownKeyException")
    with pytest.raises(NotSealed) as caught:
        attested.ask(call)
    assert caught.value.is_key_unknown


@pytest.mark.parametrize("size", [0, 1, 9, 100, 6_000_000])
def test_garbage(attested: Attested, size: int) -> None:
    garbage = b"\x01" + attested.seal().body[1:9] + secrets.token_bytes(size)
    assert attested.refusal(garbage) == NOT_OPENED
    assert attested.refusal(b"\xff" * size) == NOT_OPENED


def test_as_large_as_a_plain_one_may_be(attested: Attested) -> None:
    large = secrets.token_bytes(6_000_000)
    assert attested.ask(attested.seal(large)).body == large.upper()
    status, _, _ = attested.send(attested.seal(secrets.token_bytes(6_553_500)).body)
    assert status == 413


# Attacks on the answer.


def test_an_answer_that_was_changed_does_not_open(attested: Attested) -> None:
    call, other = attested.seal(), attested.seal()
    _, kind, answer = attested.send(call.body)
    _, _, others = attested.send(other.body)
    with pytest.raises(SealedMessageError):
        call.opened(200, kind, others)
    for length in range(len(answer)):
        with pytest.raises(AnswerCut):
            call.opened(200, kind, answer[:length])
    for position in range(len(answer)):
        changed = bytearray(answer)
        changed[position] ^= 1 << position % 8
        with pytest.raises(SealedMessageError):
            call.opened(200, kind, bytes(changed))
    for frames in reordered(answer):
        with pytest.raises(SealedMessageError):
            call.opened(200, kind, frames)
    assert call.opened(200, kind, answer).body == b"BODY"


def reordered(answer: bytes) -> Iterator[bytes]:
    start, rest, frames = answer[:8], answer[8:], []
    while rest:
        end = 5 + int.from_bytes(rest[1:5], "big")
        frames.append(rest[:end])
        rest = rest[end:]
    assert len(frames) == 3
    for order in ((0, 2, 1), (1, 0, 2), (0, 2), (1, 2), (0, 1, 1, 2), (0, 1, 2, 1), (2,)):
        yield start + b"".join(frames[number] for number in order)


def test_a_stream_is_sealed_piece_by_piece_and_signed_at_its_end(attested: Attested) -> None:
    headers = [(b"pieces", b"3"), (b"x-torchkeep-receipt", b"fresh")]
    call = attested.seal(headers=headers)
    connection = HTTPConnection(attested.address, timeout=60)
    with contextlib.closing(connection):
        connection.request("POST", PATH, call.body, {"Content-Type": call.content_type})
        response = connection.getresponse()
        assert response.headers["transfer-encoding"] == "chunked"
        reader = call.reader(response.status, response.headers["content-type"])
        answer = whole(reader, iter(lambda: response.read1(), b""))
    assert answer.body == b"piece piece piece BODY"
    assert answer.header("ts_stream_next") == "true"
    receipt = check_receipt(
        answer.receipt,
        attested.public_key,
        nonce="fresh",
        asked=Asked("POST", PATH, "", "", body_digest(b"body")),
        answered=Answered(200, "", body_digest(answer.body)),
        models=attested.claims.models or (),
    )
    assert (receipt.model.name, receipt.model.version) == ("m", "1.0")


def test_a_plain_answer_with_a_receipt(attested: Attested) -> None:
    headers = {"Content-Type": "application/x", "X-Torchkeep-Receipt": "fresh"}
    path = "/predictions/m?a=b"
    status, answered, body = attested.server.request("POST", path, b"body", headers)
    assert (status, body) == (200, b"BODY")
    receipt = check_receipt(
        answered["x-torchkeep-receipt"],
        attested.public_key,
        nonce="fresh",
        asked=Asked("POST", "/predictions/m", "a=b", "application/x", body_digest(b"body")),
        answered=Answered(200, "", body_digest(b"BODY")),
        models=attested.claims.models or (),
    )
    assert receipt.request_id == answered["x-request-id"]


# Many at once.


def test_many_clients_at_once_each_get_their_own(attested: Attested) -> None:
    sealer = Sealer(attested.claims.hpke_key)

    def ask(number: int) -> None:
        for turn in range(3):
            body = f"client {number} turn {turn} ".encode() * 50
            assert attested.ask(sealer.seal("POST", PATH, body)).body == body.upper()

    with ThreadPoolExecutor(MANY) as pool:
        list(pool.map(ask, range(MANY)))


def test_of_one_request_sent_many_times_at_once_one_counts(attested: Attested) -> None:
    call = attested.seal()
    with ThreadPoolExecutor(MANY) as pool:
        answers = list(pool.map(lambda _: attested.send(call.body)[0], range(MANY)))
    assert sorted(answers) == [200] + [409] * (MANY - 1)


# Who stands between.


def markers(*secret: bytes) -> Sequence[bytes]:
    """What must not be seen, as it is and as somebody could have written it."""
    return [
        form
        for one in secret
        for form in (one, one.hex().encode(), base64.b64encode(one)[:-4], one[:12], one[-12:])
    ]


def test_nothing_of_input_or_answer_passes_a_proxy(attested: Attested, tmp_path: Path) -> None:
    secret, header = secrets.token_hex(24).encode(), secrets.token_hex(24).encode()
    headers = [(b"X-Secret", header), (b"Content-Type", b"hush/hush-hush")]
    sealer = Sealer(attested.claims.hpke_key)
    port = int(attested.address.partition(":")[2])
    with TlsProxy(port, tmp_path).listening() as proxy:
        for options in ({}, {"query": "model_name=m&secret=" + header.decode()}):
            path = "/invocations" if options else PATH
            for _ in range(2):
                call = sealer.seal("POST", path, secret, headers, **options)
                answer = attested.ask(call, proxy=proxy)
                assert answer.body == secret.upper(), answer
        # The capture shows what is not sealed, so it would have shown the rest.
        attested.send(b"marker of a plain one", PATH, "POST", proxy, "application/x")
    assert b"marker of a plain one" in proxy.read
    assert b"MARKER OF A PLAIN ONE" in proxy.read
    for marker in markers(secret, header, secret.upper(), b"hush/hush-hush"):
        assert marker not in proxy.read


def test_what_a_proxy_can_do_is_to_refuse(attested: Attested) -> None:
    """An answer that it made itself is no answer."""
    call = attested.seal()
    for status, kind in ((200, "application/json"), (200, call.content_type), (500, "text/plain")):
        with pytest.raises(NotSealed):
            call.opened(status, kind, b"forged")


def test_keys_are_asked_for_outside_of_the_seal(
    server_factory: Callable[..., Any], tmp_path: Path
) -> None:
    (tmp_path / "m.mar").write_bytes(ARCHIVES["m.mar"])
    args = ["--insecure-simulated-tee"]
    server = server_factory(["m.mar"], tmp_path, None, args, asks_for_keys=True)
    server.wait_until_ready("m")
    attested = Attested(server, "")
    call = attested.seal(
        headers=[(b"Authorization", b"Bearer " + server.keys["inference"].encode())]
    )
    assert attested.refusal(call.body) == (400, "InvalidKeyException")
    headers = {
        "Content-Type": call.content_type,
        "Authorization": f"Bearer {server.keys['inference']}",
    }
    status, answered, body = server.request("POST", PATH, call.body, headers)
    assert call.opened(status, answered["content-type"], body).body == b"BODY"


def test_no_secret_of_theirs_is_in_the_log(attested: Attested) -> None:
    secret = secrets.token_hex(16).encode()
    call = attested.seal(secret, headers=[(b"X-Secret", secret)])
    attested.ask(call)
    attested.send(call.body)
    attested.server.wait_for_lines("POST " + PATH)
    log = attested.server.log_text()
    for marker in (secret, call.inner.response_key.hex().encode(), attested.claims.hpke_key.hex()):
        assert (marker if isinstance(marker, str) else marker.decode()) not in log
