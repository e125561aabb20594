"""Evidence for clients: what it is bound to, and that it is made one at a time and seldom."""

import asyncio
import base64
import hashlib
import json
from dataclasses import dataclass, field
from typing import Any

import pytest
from unsigned_quote import unsigned_quote

from torchkeep.frontend import attestation as module
from torchkeep.frontend.app import ApiSettings, inference_app, management_app, shared_app
from torchkeep.frontend.attestation import (
    BURST,
    QUOTES_PER_S,
    Attestor,
    ServerIdentity,
    TooManyQuotes,
)
from torchkeep.frontend.metrics import Metrics
from torchkeep.runtime.claims import ModelClaim, parse_claims, report_data
from torchkeep.runtime.errors import EvidenceError
from torchkeep.runtime.identity import AttestedKey
from torchkeep.runtime.quote import parse_quote
from torchkeep.runtime.ratls import read_certificate

NONCE = bytes(range(32))
NONCE_TEXT = base64.urlsafe_b64encode(NONCE).decode().rstrip("=")
MODELS = [ModelClaim("b", "1.0", b"\x02" * 32), ModelClaim("a", "1.0", b"\x01" * 32)]


@dataclass
class Tee:
    """Quotes without a signature, which nobody here looks at."""

    tee: str = "tdx"
    event_log: str | None = None
    error: EvidenceError | None = None
    may_go_on: asyncio.Event = field(default_factory=asyncio.Event)
    is_slow: bool = False
    now_made: int = 0
    most_at_once: int = 0

    async def evidence(self, data: bytes) -> dict[str, Any]:
        self.now_made += 1
        self.most_at_once = max(self.most_at_once, self.now_made)
        try:
            if self.is_slow:
                await self.may_go_on.wait()
            else:
                await asyncio.sleep(0)
            if self.error:
                raise self.error
            quote = base64.b64encode(unsigned_quote(data)).decode()
            return {"quote": quote, "cc_eventlog": self.event_log}
        finally:
            self.now_made -= 1


IDENTITY = ServerIdentity(AttestedKey(), b"\x07" * 32, b"\x08" * 32, "tdx")


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def attestor(tee: Tee, clock: Clock | None = None) -> Attestor:
    return Attestor(tee, IDENTITY, lambda: list(MODELS), clock or Clock())


def app(tee: Tee, clock: Clock | None = None) -> Any:
    registry: Any = None  # a route of its own: no model is looked for
    return inference_app(registry, Metrics("host"), ApiSettings(attestor=attestor(tee, clock)))


def test_evidence_is_bound_to_nonce_keys_configuration_and_models(ask: Any) -> None:
    answer = ask(app(Tee(event_log="bG9n")), "GET", f"/attestation?nonce={NONCE_TEXT}")
    assert answer.status == 200
    document = answer.json
    assert document["format"] == "torchkeep-attestation-1"
    assert document["tee"] == "tdx"
    assert document["event_log"] == "bG9n"
    buffer = base64.b64decode(document["claims"])
    quote = parse_quote(base64.b64decode(document["quote"]))
    assert quote.report.report_data == report_data(buffer)
    claims = parse_claims(buffer)
    assert claims.nonce == NONCE
    assert claims.models == tuple(sorted(MODELS))
    assert (claims.hpke_key, claims.config, claims.tee) == (b"\x07" * 32, b"\x08" * 32, "tdx")
    public_key = base64.b64decode(document["public_key"])
    assert public_key == IDENTITY.key.public_key
    assert claims.public_key_hash == hashlib.sha256(public_key).digest()


def test_document_has_no_event_log_where_there_is_none(ask: Any) -> None:
    answer = ask(app(Tee()), "GET", f"/attestation?nonce={NONCE_TEXT}")
    assert "event_log" not in answer.json


@pytest.mark.parametrize("length", [16, 17, 18, 64])
def test_nonce_of_16_to_64_bytes_is_taken(ask: Any, length: int) -> None:
    text = base64.urlsafe_b64encode(b"\xff" * length).decode().rstrip("=")
    document = ask(app(Tee()), "GET", f"/attestation?nonce={text}").json
    assert parse_claims(base64.b64decode(document["claims"])).nonce == b"\xff" * length


@pytest.mark.parametrize(
    "query",
    [
        "",
        "?nonce=",
        "?nonce=AAAA",
        "?nonce=" + "A" * 20,
        "?nonce=" + "A" * 87,
        "?nonce=" + "A" * 22 + "==",
        "?nonce=" + "A" * 21 + "+",
        "?nonce=" + "A" * 21 + "%21",
        "?nonce=" + "A" * 21 + "%C3%A4",
        "?Nonce=" + "A" * 22,
    ],
)
def test_bad_nonce_is_refused_and_costs_no_quote(ask: Any, query: str) -> None:
    tee = Tee()
    answer = ask(app(tee), "GET", f"/attestation{query}")
    assert answer.status == 400
    assert "16 to 64 bytes in base64url" in answer.json["message"]
    assert tee.most_at_once == 0


def test_only_get_attests(ask: Any) -> None:
    assert ask(app(Tee()), "POST", f"/attestation?nonce={NONCE_TEXT}").status == 405


def test_route_is_of_the_ports_that_predict_alone(ask: Any) -> None:
    registry: Any = None
    settings = ApiSettings(attestor=attestor(Tee()))
    path = f"/attestation?nonce={NONCE_TEXT}"
    assert ask(shared_app(registry, Metrics("h"), settings, False), "GET", path).status == 200
    assert ask(management_app(registry, Metrics("h"), settings), "GET", path).status == 404
    plain = inference_app(registry, Metrics("h"), ApiSettings())
    assert ask(plain, "GET", path).status == 404


def test_quotes_are_made_one_at_a_time() -> None:
    async def ask_for_many() -> int:
        tee = Tee()
        one = attestor(tee)
        await asyncio.gather(*(one.document(NONCE) for _ in range(BURST)))
        return tee.most_at_once

    assert asyncio.run(ask_for_many()) == 1


def test_more_than_the_burst_is_told_when_to_come_again(ask: Any) -> None:
    clock = Clock()
    one = app(Tee(), clock)
    path = f"/attestation?nonce={NONCE_TEXT}"
    assert {ask(one, "GET", path).status for _ in range(BURST)} == {200}
    refused = ask(one, "GET", path)
    assert refused.status == 503
    assert refused.headers["retry-after"] == "1"
    assert refused.json["type"] == "ServiceUnavailableException"
    clock.now += 1 / QUOTES_PER_S
    assert ask(one, "GET", path).status == 200
    assert ask(one, "GET", path).status == 503
    clock.now += 1000
    assert {ask(one, "GET", path).status for _ in range(BURST)} == {200}
    assert ask(one, "GET", path).status == 503


def test_no_address_has_more_than_half_of_all_quotes() -> None:
    async def scenario() -> None:
        clock = Clock()
        one = attestor(Tee(), clock)
        for _ in range(BURST // 2):
            await one.document(NONCE, "192.0.2.1")
        with pytest.raises(TooManyQuotes) as refused:
            await one.document(NONCE, "192.0.2.1")
        assert refused.value.retry_after_s == 1
        for _ in range(BURST // 2):
            await one.document(NONCE, "192.0.2.2")
        clock.now += 1 / QUOTES_PER_S
        with pytest.raises(TooManyQuotes):
            await one.document(NONCE, "192.0.2.1")
        await one.document(NONCE, "192.0.2.3")

    asyncio.run(scenario())


def test_addresses_are_forgotten_at_last(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_PEERS", 2)

    async def scenario() -> None:
        clock = Clock()
        one = attestor(Tee(), clock)
        for number in range(20):
            clock.now += 1
            await one.document(NONCE, f"192.0.2.{number}")
        assert len(one._peers) == 2

    asyncio.run(scenario())


def test_no_more_wait_than_the_burst_however_slow_quotes_are() -> None:
    async def wait_for_many() -> None:
        tee, clock = Tee(is_slow=True), Clock()
        one = attestor(tee, clock)
        waiting = [asyncio.ensure_future(one.document(NONCE)) for _ in range(BURST)]
        await asyncio.sleep(0)
        clock.now += 1000  # credit again, and yet:
        with pytest.raises(TooManyQuotes):
            await one.document(NONCE)
        tee.may_go_on.set()
        await asyncio.gather(*waiting)
        await one.document(NONCE)

    asyncio.run(wait_for_many())


@pytest.mark.parametrize(("is_temporary", "status"), [(True, 503), (False, 500)])
def test_failure_of_the_tee_is_an_answer_without_its_words(
    ask: Any, caplog: pytest.LogCaptureFixture, is_temporary: bool, status: int
) -> None:
    tee = Tee(error=EvidenceError("agent at 127.0.0.1 is sad", is_temporary=is_temporary))
    answer = ask(app(tee), "GET", f"/attestation?nonce={NONCE_TEXT}")
    assert answer.status == status
    assert ("retry-after" in answer.headers) is is_temporary
    assert "sad" not in json.dumps(answer.json)
    assert "sad" in caplog.text


def test_certificate_claims_what_stays_true() -> None:
    certificate = asyncio.run(attestor(Tee()).certificate())
    read = read_certificate(certificate)
    claims = parse_claims(read.claims)
    assert (claims.nonce, claims.models) == (None, None)
    assert read.public_key == IDENTITY.key.public_key
    assert claims.public_key_hash == hashlib.sha256(read.public_key).digest()
    assert parse_quote(read.quote).report.report_data == report_data(read.claims)
