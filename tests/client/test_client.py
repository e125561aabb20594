"""The client against a stand-in server over real TLS: what it sends, to whom, and what never.

Each test runs with `Client` and with `AsyncClient`.
"""

import json
import ssl
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest
from attested import NONCE, AttestedServer, new_key, policy_for, spki
from attested_http import HttpServer, own_context, tls_context

from torchkeep.client import AsyncClient, Client, KeyChanged, NotVerified, Unreachable, attesting
from torchkeep.client.attesting import Where
from torchkeep.client.pinned_tls import pinned_context
from torchkeep.client.transports import Channel, VerifiedTransport
from torchkeep.client.trust import Judgement, Trust

TOKEN = "secret-token"
SECRET = b"what nobody else may see"


@pytest.fixture
def attested() -> AttestedServer:
    return AttestedServer()


@pytest.fixture
def server(attested: AttestedServer, tmp_path: Path) -> Iterator[HttpServer]:
    context = own_context(attested, tmp_path / "tls.pem")
    with HttpServer(attested, lambda number: context).listening() as listening:
        yield listening


def failed(refused: pytest.ExceptionInfo[NotVerified]) -> list[str]:
    return [check.name for check in refused.value.verdict.failed]


def test_nothing_is_sent_before_the_server_is_verified(
    client_of: Callable[..., Any], server: HttpServer
) -> None:
    with client_of(server.url, policy_for(server.attested), token=TOKEN) as client:
        assert server.received == []
        answer = client.predict("echo", SECRET)
        assert answer.json() == {"path": "/predictions/echo", "length": len(SECRET)}
        client.predict("echo", SECRET, version="1.0")
    first, second, third = server.received
    assert first.path.startswith("/attestation?nonce=")
    assert "authorization" not in first.headers
    assert (second.path, second.body) == ("/predictions/echo", SECRET)
    assert second.headers["authorization"] == f"Bearer {TOKEN}"
    assert third.path == "/predictions/echo/1.0"
    assert second.connection == third.connection != first.connection


def test_every_verification_has_a_nonce_of_its_own(
    client_of: Callable[..., Any], server: HttpServer
) -> None:
    with client_of(server.url, policy_for(server.attested)) as client:
        for _ in range(3):
            verdict = client.verify()
            assert verdict.holds
            assert [check.name for check in verdict.checks][-1] == "certificate"
    assert len({one.path for one in server.received}) == 3


@pytest.mark.parametrize(
    ("changes", "check"),
    [
        ({"allow_simulated": False}, "tee"),
        ({"config": frozenset({bytes(32)})}, "config"),
        ({"models": frozenset()}, "models"),
        ({"measurements": {"mr_td": frozenset({bytes(48)})}}, "mr_td"),
    ],
)
def test_a_server_that_is_not_as_the_policy_asks_gets_nothing(
    client_of: Callable[..., Any], server: HttpServer, changes: dict[str, Any], check: str
) -> None:
    with client_of(server.url, policy_for(server.attested, **changes), token=TOKEN) as client:
        for _ in range(2):
            with pytest.raises(NotVerified, match=f"nothing was sent. .*{check}: ") as refused:
                client.predict("echo", SECRET)
            assert failed(refused) == [check]
    assert server.paths() == ["/attestation"] * 2


def test_simulated_evidence_that_is_allowed_is_loud(
    client_of: Callable[..., Any], server: HttpServer, caplog: pytest.LogCaptureFixture
) -> None:
    with client_of(server.url, policy_for(server.attested)) as client:
        client.predict("echo", b"")
    assert "SIMULATED evidence: it proves nothing" in caplog.text


def test_a_replayed_document_is_refused(client_of: Callable[..., Any], server: HttpServer) -> None:
    server.answer_attestation = lambda nonce: (200, {}, server.attested.document(NONCE))
    with client_of(server.url, policy_for(server.attested)) as client:
        with pytest.raises(NotVerified) as refused:
            client.predict("echo", SECRET)
        assert failed(refused) == ["nonce"]
    assert server.paths() == ["/attestation"]


def swapped_contexts(
    attested: AttestedServer, tmp_path: Path
) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """The TLS of the server, and of somebody in between who shows the server's evidence."""
    thief = replace(attested, key=new_key())
    return (
        own_context(attested, tmp_path / "honest.pem"),
        tls_context(thief.key, thief.certificate(), tmp_path / "thief.pem"),
    )


def test_a_proxy_that_swaps_the_certificate_is_refused(
    client_of: Callable[..., Any], attested: AttestedServer, tmp_path: Path
) -> None:
    _, thief = swapped_contexts(attested, tmp_path)
    with (
        HttpServer(attested, lambda number: thief).listening() as server,
        client_of(server.url, policy_for(attested)) as client,
    ):
        with pytest.raises(NotVerified) as refused:
            client.predict("echo", SECRET)
        assert failed(refused) == ["tls_key"]
        assert server.paths() == ["/attestation"]


def test_a_proxy_that_swaps_the_certificate_later_gets_no_request(
    client_of: Callable[..., Any], attested: AttestedServer, tmp_path: Path
) -> None:
    honest, thief = swapped_contexts(attested, tmp_path)
    # Each connection for evidence goes through, each one for data does not.
    contexts = [honest, thief]
    with (
        HttpServer(attested, lambda number: contexts[number % 2]).listening() as server,
        client_of(server.url, policy_for(attested), token=TOKEN) as client,
    ):
        with pytest.raises(KeyChanged, match="somebody is in between"):
            client.predict("echo", SECRET)
        assert server.paths() == ["/attestation", "/attestation"]
        assert {one.connection % 2 for one in server.received} == {0}


def test_a_server_that_was_started_anew_is_verified_anew(
    client_of: Callable[..., Any], attested: AttestedServer, tmp_path: Path
) -> None:
    first = own_context(attested, tmp_path / "first.pem")
    again = replace(attested, key=new_key())
    second = own_context(again, tmp_path / "second.pem")
    with HttpServer(attested, lambda number: first).listening() as server:
        port = int(server.url.rpartition(":")[2])
        client = client_of(server.url, policy_for(attested))
        client.predict("echo", b"x")
    with client:
        with HttpServer(again, lambda number: second).listening(port) as server:
            assert client.predict("echo", b"y").status_code == 200
            assert server.paths() == ["/attestation", "/predictions/echo"]
        other = replace(again, key=new_key(), config=bytes(32))
        third = own_context(other, tmp_path / "third.pem")
        with HttpServer(other, lambda number: third).listening(port) as server:
            with pytest.raises(NotVerified) as refused:
                client.predict("echo", SECRET)
            assert failed(refused) == ["config"]
            assert server.paths() == ["/attestation"]


def test_certificate_without_evidence_is_named(
    client_of: Callable[..., Any], attested: AttestedServer, tmp_path: Path
) -> None:
    bare = replace(attested, quoting={"seed": b"another"}).certificate()
    context = tls_context(attested.key, bare, tmp_path / "tls.pem")
    with (
        HttpServer(attested, lambda number: context).listening() as server,
        client_of(server.url, policy_for(attested)) as client,
    ):
        with pytest.raises(NotVerified, match="certificate: quote: ") as refused:
            client.predict("echo", SECRET)
        assert failed(refused) == ["certificate"]


def test_evidence_is_asked_for_again_when_it_is_too_old(server: HttpServer) -> None:
    now = [100.0]
    url = httpx.URL(server.url)
    policy = policy_for(server.attested, max_age_s=60)
    trust = Trust(Judgement(Where(url), policy, clock=lambda: now[0]))
    with httpx.Client(transport=VerifiedTransport(trust, Channel(url)), base_url=url) as client:
        for moment, asked in [(100.0, 1), (159.0, 1), (160.0, 2), (219.0, 2), (1000.0, 3)]:
            now[0] = moment
            client.get("/ping")
            assert server.paths().count("/attestation") == asked
        # The key is the same, and so is the connection.
        assert len({one.connection for one in server.received if one.path == "/ping"}) == 1
        now[0] = 2000.0
        server.answer_attestation = lambda nonce: (200, {}, b"{}")
        with pytest.raises(NotVerified):
            client.get("/ping")
        assert server.paths().count("/ping") == 5


def test_a_server_that_asks_for_patience_gets_it(
    client_of: Callable[..., Any], server: HttpServer
) -> None:
    answers = [(503, {"Retry-After": "0"}, b""), (503, {"Retry-After": "0"}, b"")]

    def answer(nonce: bytes) -> tuple[int, dict[str, str], bytes]:
        return answers.pop() if answers else (200, {}, server.attested.document(nonce))

    server.answer_attestation = answer
    with client_of(server.url, policy_for(server.attested)) as client:
        assert client.predict("echo", b"x").status_code == 200
    assert server.paths() == ["/attestation"] * 3 + ["/predictions/echo"]


def test_a_server_that_asks_for_no_patience_is_not_flooded(
    client_of: Callable[..., Any], server: HttpServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attesting, "DEADLINE_S", 1.0)
    server.answer_attestation = lambda nonce: (503, {"Retry-After": "0"}, b"")
    with client_of(server.url, policy_for(server.attested)) as client, pytest.raises(Unreachable):
        client.predict("echo", b"x")
    assert 1 < len(server.paths()) <= 1.0 / attesting.SHORTEST_PAUSE_S


@pytest.mark.parametrize(
    ("status", "headers", "body", "reason"),
    [
        (404, {}, b"", "no evidence to show"),
        (500, {}, b"", "status 500"),
        (503, {}, b"", "status 503"),
        (503, {"Retry-After": "soon"}, b"", "status 503"),
        (503, {"Retry-After": "100000000"}, b"", "status 503"),
        (302, {"Location": "/elsewhere"}, b"", "status 302"),
        (200, {}, b" " * (5 << 20), "more than"),
    ],
)
def test_a_server_without_evidence_is_named(
    client_of: Callable[..., Any],
    server: HttpServer,
    status: int,
    headers: dict[str, str],
    body: bytes,
    reason: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("torchkeep.client.attesting.LONGEST_PAUSE_S", 1e9)
    server.answer_attestation = lambda nonce: (status, headers, body)
    with (
        client_of(server.url, policy_for(server.attested)) as client,
        pytest.raises(Unreachable, match=reason),
    ):
        client.predict("echo", SECRET)
    assert server.paths() == ["/attestation"]


def test_nobody_there(
    client_of: Callable[..., Any], attested: AttestedServer, free_port: Callable[[], int]
) -> None:
    with (
        client_of(f"https://127.0.0.1:{free_port()}", policy_for(attested)) as client,
        pytest.raises(Unreachable, match="https://127"),
    ):
        client.predict("echo", SECRET)


def test_kinds_of_input(client_of: Callable[..., Any], server: HttpServer) -> None:
    with client_of(server.url, policy_for(server.attested)) as client:
        client.predict("echo", b"bytes", content_type="image/png", headers={"X-Of-Mine": "1"})
        client.predict("echo", "text")
        client.predict("echo", json={"a": 1})
        client.predict("echo", files={"data": b"a form"})
        client.predict("echo", pieces(client))
        client.predict("echo", b"explain", verb="explanations")
        client.predict("a/b c", b"odd", version="1/0")
        with pytest.raises(ValueError, match="one of content, json and files"):
            client.predict("echo", b"x", json={})
        for name in ("", "..", "."):
            with pytest.raises(ValueError, match="names no model"):
                client.predict(name)
    received = server.received[1:]
    assert [one.body for one in received[:3]] == [b"bytes", b"text", b'{"a":1}']
    assert received[0].headers["content-type"] == "image/png"
    assert received[0].headers["x-of-mine"] == "1"
    assert b'name="data"' in received[3].body
    assert received[3].headers["content-type"].startswith("multipart/form-data")
    assert received[4].body == b"piece by piece"
    assert received[5].path == "/explanations/echo"
    assert received[6].path == "/predictions/a%2Fb%20c/1%2F0"


def pieces(client: Any) -> Any:
    sent = [b"piece ", b"by ", b"piece"]

    async def asynchronously() -> AsyncIterator[bytes]:
        for piece in sent:
            yield piece

    return iter(sent) if isinstance(client, Client) else asynchronously()


def test_answer_in_pieces(client_of: Callable[..., Any], server: HttpServer) -> None:
    with (
        client_of(server.url, policy_for(server.attested)) as client,
        client.stream("echo", b"x", version="pieces") as response,
    ):
        assert response.read() == b"one two"


def test_management_calls(
    client_of: Callable[..., Any], server: HttpServer, attested: AttestedServer
) -> None:
    policy = policy_for(attested)
    with client_of(server.url, policy, token="other", management_token=TOKEN) as client:
        client.ping()
        client.register("a.mar", initial_workers=1, synchronous=True, model_name=None)
        client.models(limit=5)
        client.describe("a", "1.0", customized=False)
        client.describe("a")
        client.scale("a", min_worker=2)
        client.set_default("a", "2.0")
        client.unregister("a", "1.0")
    calls = [(one.method, one.path) for one in server.received[1:]]
    assert calls == [
        ("GET", "/ping"),
        ("POST", "/models?url=a.mar&initial_workers=1&synchronous=true"),
        ("GET", "/models?limit=5"),
        ("GET", "/models/a/1.0?customized=false"),
        ("GET", "/models/a"),
        ("PUT", "/models/a?min_worker=2"),
        ("PUT", "/models/a/2.0/set-default"),
        ("DELETE", "/models/a/1.0"),
    ]
    assert {one.headers["authorization"] for one in server.received[2:]} == {f"Bearer {TOKEN}"}


def test_management_at_an_address_of_its_own(
    client_of: Callable[..., Any], server: HttpServer, attested: AttestedServer, tmp_path: Path
) -> None:
    plain = HttpServer(attested, lambda number: None)
    stranger = new_key()
    certificate = replace(attested, key=stranger).certificate()
    context = tls_context(stranger, certificate, tmp_path / "stranger.pem")
    other = HttpServer(attested, lambda number: context)
    with plain.listening(), other.listening():
        for management in (plain, other):
            url = management.url
            with client_of(server.url, policy_for(attested), management_url=url) as client:
                if management is plain:
                    client.models()
                    continue
                with pytest.raises(KeyChanged):
                    client.models()
    assert plain.paths() == ["/models"]
    assert other.paths() == []
    assert set(server.paths()) == {"/attestation"}


@pytest.mark.parametrize(
    ("url", "management_url", "reason"),
    [
        ("http://127.0.0.1:8080", None, "whoever is in between would read"),
        ("ftp://127.0.0.1", None, "expected https"),
        ("127.0.0.1:8443", None, "expected https"),
        ("https://", None, "expected https"),
        ("https://host?x=1", None, "expected https"),
        ("https://host:port", None, "port"),
        ("https://host", "http://192.0.2.1:8081", "only this very machine"),
        ("https://host", "http://example.com", "only this very machine"),
    ],
)
def test_addresses_that_protect_nothing_are_refused(
    client_of: Callable[..., Any],
    attested: AttestedServer,
    url: str,
    management_url: str | None,
    reason: str,
) -> None:
    kind = Client if client_of is Client else AsyncClient
    with pytest.raises(ValueError, match=reason):
        kind(url, policy_for(attested), management_url=management_url)


def test_the_plain_client_goes_nowhere_else(server: HttpServer, attested: AttestedServer) -> None:
    with Client(server.url, policy_for(attested)) as client:
        for elsewhere in ("http://127.0.0.1:1/", "https://127.0.0.1:1/", "https://example.com/"):
            with pytest.raises(ValueError, match="which is what is verified"):
                client.http.get(elsewhere)
    assert server.received == []


def test_policy_may_be_a_file(server: HttpServer, tmp_path: Path) -> None:
    file = tmp_path / "policy.yaml"
    file.write_text(
        "version: 1\nmeasurements: any\nconfig: any\nmodels: any\nallow_simulated: true\n"
    )
    for policy in (file, str(file)):
        with Client(server.url, policy) as client:
            assert client.predict("echo", b"x").status_code == 200


def test_pinned_handshake_ends_before_any_request(server: HttpServer) -> None:
    context = pinned_context(spki(new_key()))
    with pytest.raises(KeyChanged):
        httpx.Client(verify=context, trust_env=False).post(server.url, content=SECRET)
    assert server.received == []
    pinned = pinned_context(spki(server.attested.key))
    with httpx.Client(verify=pinned, trust_env=False) as client:
        assert json.loads(client.get(server.url).content)["length"] == 0
