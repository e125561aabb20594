"""Where keys come from: each source, its refusals, and services that misbehave."""

import asyncio
import base64
import datetime
import hashlib
import json
import os
import time
from collections.abc import Callable, Iterator
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.x509.oid import NameOID
from key_services import Broker, DataHub, Handler, StandIn, seal_to

from torchkeep.runtime import fetch as fetch_module
from torchkeep.runtime import keys as keys_module
from torchkeep.runtime.broker import hash_of
from torchkeep.runtime.errors import ConfigError, KeyReleaseError
from torchkeep.runtime.evidence import SampleEvidence
from torchkeep.runtime.keys import DeliversKeys, key_source

KEY = b"0123456789abcdef0123456789ABCDEF"
PATH = "models/key/m"
KEY_ID = f"kbs:///{PATH}"


def source(setting: str, certificate: Path | None = None, evidence: bool = True) -> DeliversKeys:
    found = key_source(setting, certificate, SampleEvidence() if evidence else None)
    assert found is not None
    return found


def key_of(keys: DeliversKeys, key_id: str = KEY_ID) -> bytes:
    return bytes(asyncio.run(keys.delivered(key_id)))


def failure(keys: DeliversKeys, key_id: str = KEY_ID) -> KeyReleaseError:
    with pytest.raises(KeyReleaseError) as caught:
        key_of(keys, key_id)
    chain: BaseException | None = caught.value
    while chain is not None:
        assert KEY.decode() not in repr(chain)
        assert base64.b64encode(KEY).decode() not in repr(chain)
        chain = chain.__cause__
    return caught.value


@pytest.fixture
def hub() -> Iterator[DataHub]:
    service = DataHub()
    service.resources[PATH] = KEY
    with service.listening():
        yield service


@pytest.fixture
def broker() -> Iterator[Broker]:
    service = Broker()
    service.resources[PATH] = KEY
    with service.listening():
        yield service


@pytest.fixture(params=["hub", "broker"])
def service(request: pytest.FixtureRequest) -> StandIn:
    found: StandIn = request.getfixturevalue(request.param)
    return found


def keys_from(service: StandIn) -> DeliversKeys:
    return source(f"{'cdh' if isinstance(service, DataHub) else 'kbs'}:{service.address}")


# Files


def test_a_file_may_hold_one_key_or_several_by_name(tmp_path: Path) -> None:
    one, several = tmp_path / "one", tmp_path / "several"
    one.write_bytes(KEY)
    several.write_text(json.dumps({KEY_ID: base64.b64encode(KEY).decode()}))
    for path in (one, several):
        path.chmod(0o600)
        assert key_of(source(f"file:{path}")) == KEY


def test_one_key_in_a_file_may_begin_as_json_does(tmp_path: Path) -> None:
    path = tmp_path / "key"
    path.write_bytes(b"{" + KEY[1:])
    assert key_of(source(f"file:{path}")) == b"{" + KEY[1:]


def test_a_jwk_in_a_file_is_one_key(tmp_path: Path) -> None:
    path = tmp_path / "jwk"
    path.write_text('{"kty": "oct", "k": "AA"}')
    assert key_of(source(f"file:{path}")) == b'{"kty": "oct", "k": "AA"}'


@pytest.mark.parametrize(
    ("content", "step"),
    [
        (None, "unreachable"),
        ("{", "wrong key"),
        ("{}", "resource missing"),
        (json.dumps({KEY_ID: "?"}), "wrong key"),
        (json.dumps({KEY_ID: 1}), "wrong key"),
    ],
)
def test_a_file_without_the_key_says_so(tmp_path: Path, content: str | None, step: str) -> None:
    path = tmp_path / "keys"
    if content is not None:
        path.write_text(content)
    error = failure(source(f"file:{path}"))
    assert error.step == step
    assert str(path) in error.advice
    assert error.is_temporary == (content is None)


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o602, 0o620])
def test_a_key_file_that_others_can_use_is_named(tmp_path: Path, caplog: Any, mode: int) -> None:
    path = tmp_path / "key"
    path.write_bytes(KEY)
    path.chmod(mode)
    key_of(source(f"file:{path}"))
    assert f"others can read or change the key file {path}" in caplog.text


def test_nobody_waits_for_what_is_no_plain_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", Path("/dev/zero")):
        error = failure(source(f"file:{path}"))
        assert error.step == "unreachable"
        assert f"{path} is no plain file" in error.advice


def test_a_huge_file_is_no_key(tmp_path: Path) -> None:
    with (tmp_path / "huge").open("wb") as file:
        file.truncate(1 << 40)
    assert failure(source(f"file:{tmp_path / 'huge'}")).step == "wrong key"


# The Confidential Data Hub


def test_the_hub_delivers(hub: DataHub) -> None:
    assert key_of(keys_from(hub)) == KEY
    assert hub.requests == [f"GET /cdh/resource/{PATH}"]


def words(status: int, text: str) -> Callable[[Handler], bool]:
    def answer(request: Handler) -> bool:
        request.answer(status, text.encode())
        return True

    return answer


@pytest.mark.parametrize(
    ("status", "text", "step", "is_temporary"),
    [
        (403, "Forbidden", "policy denied", False),
        (404, "Resource Feature Not Enabled", "not configured", False),
        (404, "URL NOT FOUND", "not configured", False),
        (400, "BAD REQUEST", "not configured", False),
        (405, "Method Not Allowed", "not configured", False),
        (500, "kbs errors/PolicyDeny: Access denied by policy", "policy denied", False),
        (500, "resource not found", "resource missing", False),
        (500, "RCAR handshake failed: attestation failed", "attestation refused", False),
        (500, "error sending request: connection refused", "unreachable", True),
        (500, "Get Resource failed", "unreachable", True),
        (500, "ttrpc connect failed: No such file or directory (os error 2)", "unreachable", True),
        (500, "RCAR handshake failed: ConnectError: tcp connect error", "unreachable", True),
        (500, "http request failed: dns error: Name or service not known", "unreachable", True),
        (500, "RCAR handshake failed: KBS attest unauthorized", "attestation refused", False),
        (500, "KBS internal error: errors/PolicyDeny", "policy denied", False),
        (500, "request unautorized", "policy denied", False),
        (500, "KBS resource not found: (Error 404)", "resource missing", False),
        (502, "", "unreachable", True),
    ],
)
def test_what_the_hub_says_is_understood(
    hub: DataHub, status: int, text: str, step: str, is_temporary: bool
) -> None:
    hub.misbehave = words(status, text)
    error = failure(keys_from(hub))
    assert (error.step, error.is_temporary) == (step, is_temporary)
    assert hub.address in error.advice


def test_the_hub_does_not_have_it(hub: DataHub) -> None:
    assert failure(keys_from(hub), "kbs:///a/b/c").step == "resource missing"
    hub.is_resource_enabled = False
    assert failure(keys_from(hub)).step == "not configured"


# The broker


def test_the_golden_vector_of_canonical_json() -> None:
    digest = hash_of("sha384", {"b": 1, "a": "test", "c": {"d": "e"}}).hex()
    assert digest.startswith("e71ce8e7")
    assert digest.endswith("8870c3")
    assert hash_of("sha256", {"ä": 1}) == hashlib.sha256('{"ä":1}'.encode()).digest()


@pytest.mark.parametrize("algorithm", ["sha256", "sha384", "sha512", None])
def test_the_broker_releases(broker: Broker, algorithm: str | None) -> None:
    broker.hash_algorithm = algorithm
    assert key_of(keys_from(broker)) == KEY
    steps = ["POST /kbs/v0/auth", "POST /kbs/v0/attest", f"GET /kbs/v0/resource/{PATH}"]
    assert broker.requests == steps


def test_each_release_is_a_session_of_its_own(broker: Broker) -> None:
    keys = keys_from(broker)
    assert [key_of(keys), key_of(keys)] == [KEY, KEY]
    assert len(broker._sessions) == 2


def test_without_evidence_nothing_is_asked(broker: Broker) -> None:
    error = failure(source(f"kbs:{broker.address}", evidence=False))
    assert error.step == "attestation refused"
    assert "insecure_simulated_tee" in error.advice
    assert broker.requests == []


def test_the_brokers_refusals(broker: Broker) -> None:
    keys = keys_from(broker)
    assert failure(keys, "kbs:///a/b/c").step == "resource missing"
    broker.is_policy_open = False
    assert failure(keys).step == "policy denied"
    broker.is_sample_accepted = False
    error = failure(keys)
    assert (error.step, error.is_temporary) == ("attestation refused", False)


def at(path: str, deed: Callable[[Handler], None]) -> Callable[[Handler], bool]:
    """Misbehaves at one of the steps."""

    def misbehave(request: Handler) -> bool:
        if path not in request.path:
            return False
        deed(request)
        return True

    return misbehave


def says(status: int, body: Any, **headers: str) -> Callable[[Handler], None]:
    return lambda request: request.answer(status, body, "application/json", **headers)


COOKIE = {"Set_Cookie": "kbs-session-id=x"}


@pytest.mark.parametrize(
    ("path", "deed", "step", "text"),
    [
        ("auth", says(200, b"<html>"), "unreachable", "opened no session"),
        ("auth", says(200, b"<html>", **COOKIE), "unreachable", "has no nonce"),
        ("auth", says(200, {"nonce": ""}, **COOKIE), "unreachable", "has no nonce"),
        ("auth", says(200, b'{"nonce": "\\ud800"}', **COOKIE), "unreachable", "has no nonce"),
        (
            "auth",
            says(
                200,
                {"nonce": "n", "extra-params": {"selected-hash-algorithm": "md5"}},
                **COOKIE,
            ),
            "unreachable",
            "selects a hash",
        ),
        ("auth", says(404, b""), "not configured", "no Key Broker Service"),
        ("auth", says(401, {"type": "x/AttestationError"}), "attestation refused", "evidence"),
        ("auth", says(503, b"busy"), "unreachable", "status 503"),
        ("attest", says(200, b"{"), "unreachable", "without a token"),
        ("attest", says(200, {"token": "a\r\nb"}), "unreachable", "without a token"),
        ("attest", says(403, b"no"), "attestation refused", "evidence"),
        ("attest", says(500, b"no"), "unreachable", "status 500"),
        ("resource", says(200, b"{"), "unreachable", "lacks protected"),
        ("resource", says(200, {"protected": "e30"}), "unreachable", "not encrypted by"),
        ("resource", says(401, {"type": "errors/TokenNotFound"}), "attestation refused", ""),
        ("resource", says(403, {"type": 3}), "policy denied", "resource policy"),
        ("resource", says(401, {"type": "errors/PluginInternalError"}), "resource missing", "ask"),
        ("resource", says(500, {"type": "errors/x"}), "unreachable", "status 500"),
    ],
)
def test_a_broker_that_lies(broker: Broker, path: str, deed: Any, step: str, text: str) -> None:
    broker.misbehave = at(path, deed)
    error = failure(keys_from(broker))
    assert error.step == step
    assert text in error.advice
    assert broker.address in error.advice


def test_a_secret_for_somebody_else_does_not_open(broker: Broker) -> None:
    def for_another(request: Handler) -> None:
        (session,) = broker._sessions.values()
        jwk = {**session["key"], "x": session["key"]["y"]}
        other = ec.generate_private_key(ec.SECP256R1()).public_key().public_numbers()
        for name in ("x", "y"):
            raw = getattr(other, name).to_bytes(32, "big")
            jwk[name] = base64.urlsafe_b64encode(raw).rstrip(b"=").decode()
        request.answer(200, seal_to(jwk, KEY), "application/json")

    broker.misbehave = at("resource", for_another)
    assert "does not open" in failure(keys_from(broker)).advice


def test_a_session_of_another_client_is_none(broker: Broker) -> None:
    def swap(request: Handler) -> bool:
        if "attest" in request.path:
            request.headers.replace_header("cookie", "kbs-session-id=another")
        return False

    broker.misbehave = swap
    assert failure(keys_from(broker)).step == "attestation refused"


# Both


def raw(request: Handler, data: bytes) -> None:
    request.wfile.write(data)


OK = b"HTTP/1.1 200 OK\r\n"
LENGTH = b"content-length: "
CHUNKED = b"transfer-encoding: chunked\r\n\r\n"


def flood(request: Handler) -> None:
    request.wfile.write(b"HTTP/1.1 200 OK\r\ncontent-length: 1000000000\r\n\r\n")
    for _ in range(1000):
        request.wfile.write(bytes(1 << 16))


def drip(request: Handler) -> None:
    request.wfile.write(b"HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n")
    while not request.service.released.wait(0.02):
        request.wfile.write(b"x")


@pytest.mark.parametrize(
    ("deed", "text"),
    [
        (flood, "longer than"),
        (drip, "no complete answer in 0.3 s"),
        (lambda request: request.service.released.wait(), "no complete answer in 0.3 s"),
        (lambda request: raw(request, b"SSH-2.0-x\r\n"), "no complete HTTP"),
        (lambda request: raw(request, b""), "no complete HTTP"),
        (lambda request: raw(request, OK), "no complete HTTP"),
        (lambda request: raw(request, OK + b"a: b\r\n" * 500 + b"\r\n"), "no complete HTTP"),
        (lambda request: raw(request, OK + LENGTH + b"-1\r\n\r\nx"), "no complete HTTP"),
        (lambda request: raw(request, OK + LENGTH + b"9" * 30 + b"\r\n\r\nx"), "no complete HTTP"),
        (lambda request: raw(request, OK + 2 * (LENGTH + b"1\r\n") + b"\r\nx"), "no complete HTTP"),
        (lambda request: raw(request, OK + CHUNKED + b"f" * 30 + b"\r\nx"), "no complete HTTP"),
        (lambda request: raw(request, OK + CHUNKED + b"-1\r\nx\r\n"), "no complete HTTP"),
        (lambda request: raw(request, OK + CHUNKED + b"2\r\nx\r\n0\r\n\r\n"), "no complete HTTP"),
        (lambda request: raw(request, OK + CHUNKED + b"1\r\nx\r\n"), "no complete HTTP"),
        (lambda request: raw(request, OK + LENGTH + b"1\r\n" + CHUNKED + b"0\r\n\r\n"), "no comp"),
        (
            lambda request: raw(request, b"HTTP/1.1 200 OK\r\ncontent-length: 99\r\n\r\n{"),
            "no complete HTTP",
        ),
        (
            lambda request: request.answer(302, b"", Location="http://127.0.0.1:1/"),
            "redirects (status 302)",
        ),
    ],
)
def test_a_service_that_does_not_answer(
    service: StandIn, deed: Any, text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Short only where it is to pass: a busy machine is slow with every answer.
    monkeypatch.setattr(fetch_module, "DEADLINE_S", 0.3 if "in 0.3 s" in text else 20.0)
    service.misbehave = at("", deed)
    error = failure(keys_from(service))
    assert (error.step, error.is_temporary) == ("unreachable", True)
    assert text in error.advice
    service.released.set()


@pytest.mark.parametrize(
    "answer",
    [
        OK + LENGTH + b"32\r\n\r\n" + KEY,
        OK + b"\r\n" + KEY,
        OK
        + CHUNKED
        + b"10\r\n"
        + KEY[:16]
        + b"\r\n10;x=y\r\n"
        + KEY[16:]
        + b"\r\n0\r\na: b\r\n\r\n",
    ],
)
def test_the_forms_of_an_answer(hub: DataHub, answer: bytes) -> None:
    hub.misbehave = at("", lambda request: raw(request, answer))
    assert key_of(keys_from(hub)) == KEY


def test_an_answer_in_crumbs_is_refused_before_it_takes_time(hub: DataHub) -> None:
    crumbs = OK + CHUNKED + b"1\r\nx\r\n" * 170_000 + b"0\r\n\r\n"
    hub.misbehave = at("", lambda request: raw(request, crumbs))
    assert "no complete HTTP" in failure(keys_from(hub)).advice


@pytest.mark.parametrize("host", ["a" * 70, "a..b", "\u2028"])
def test_a_host_that_cannot_be_is_told_at_once(host: str) -> None:
    with pytest.raises(ConfigError, match="is no host name"):
        source(f"kbs:http://{host}")


def test_an_answer_of_the_longest_length(hub: DataHub) -> None:
    head = OK + LENGTH + b"1048000\r\n\r\n"
    longest = fetch_module.MAX_ANSWER_BYTES - len(head)
    head = head.replace(b"1048000", b"%7d" % longest)
    for extra, fits in ((b"", True), (b"x", False)):
        answer = head + bytes(longest) + extra
        hub.misbehave = at("", lambda request, answer=answer: raw(request, answer))
        if fits:
            assert key_of(keys_from(hub)) == bytes(longest)
        else:
            assert "longer than" in failure(keys_from(hub)).advice


def test_nobody_listens(service: StandIn) -> None:
    setting = "cdh:http://127.0.0.1:1" if isinstance(service, DataHub) else "kbs:http://127.0.0.1:1"
    error = failure(source(setting))
    assert (error.step, error.is_temporary) == ("unreachable", True)
    assert "http://127.0.0.1:1" in error.advice


def test_waiting_can_be_given_up(service: StandIn) -> None:
    service.misbehave = at("", lambda request: request.service.released.wait())

    async def scenario() -> None:
        task = asyncio.create_task(keys_from(service).delivered(KEY_ID))
        while not service.requests:  # noqa: ASYNC110 - filled by another thread
            await asyncio.sleep(0.005)
        task.cancel()
        began = time.monotonic()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert time.monotonic() - began < 5

    asyncio.run(scenario())
    service.released.set()


def test_no_proxy_is_asked(service: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "https_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    assert key_of(keys_from(service)) == KEY


@pytest.mark.parametrize("key_id", ["kbs:///a/b", "kbs://host/a/b/c", "kbs:///a/../b", "x", ""])
def test_an_id_that_is_none_is_not_asked_for(service: StandIn, key_id: str) -> None:
    assert failure(keys_from(service), key_id).step == "resource missing"
    assert not any("resource" in one for one in service.requests)


# TLS


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "broker")])
    now = datetime.datetime.now(datetime.UTC)
    built = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(IPv4Address("127.0.0.1"))]),
            critical=False,
        )
        .sign(key, SHA256())
    )
    path = tmp_path / "broker.pem"
    path.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        + built.public_bytes(serialization.Encoding.PEM)
    )
    return path


def test_the_broker_is_known_by_its_certificate(certificate: Path) -> None:
    broker = Broker()
    broker.resources[PATH] = KEY
    with broker.listening(certificate):
        assert key_of(source(f"kbs:{broker.address}", certificate)) == KEY
        error = failure(source(f"kbs:{broker.address}"))
        assert (error.step, error.is_temporary) == ("unreachable", True)
        assert "TLS failed: CERTIFICATE_VERIFY_FAILED" in error.advice
        assert len(broker.requests) == 3


def test_session_keys_of_tls_are_not_written_down(
    certificate: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSLKEYLOGFILE", str(tmp_path / "session-keys"))
    broker = Broker()
    broker.resources[PATH] = KEY
    with broker.listening(certificate):
        assert key_of(source(f"kbs:{broker.address}", certificate)) == KEY
        failure(source(f"kbs:{broker.address}"))
    assert not (tmp_path / "session-keys").exists()


# Settings


@pytest.mark.parametrize(
    "setting",
    [
        "file:",
        "key.bin",
        "cdh:",
        "cdh:https://127.0.0.1:8006",
        "cdh:http://10.0.0.1:8006",
        "cdh:http://hub.example",
        "cdh:http://127.0.0.1.example:8006",
        "kbs:127.0.0.1",
        "kbs:http://user:secret@host",
        "kbs:http://host/path",
        "kbs:http://host?x",
        "kbs:http://host:99999",
        "vault:http://host",
    ],
)
def test_a_setting_that_names_no_source(setting: str) -> None:
    with pytest.raises(ConfigError, match=r"key_source=.*expected"):
        key_source(setting, None, None)


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.2:80", "[::1]:8006", "localhost"])
def test_the_data_hub_is_on_this_machine(host: str) -> None:
    assert key_source(f"cdh:http://{host}", None, None) is not None


def test_a_password_in_a_setting_is_not_quoted() -> None:
    with pytest.raises(ConfigError) as caught:
        key_source("kbs:https://user:hunter2@host", None, None)
    assert "hunter2" not in str(caught.value)
    assert "//...@host" in str(caught.value)


def test_without_a_setting_there_is_no_source() -> None:
    assert key_source(None, None, None) is None
    assert keys_module.key_service(None) is None
    assert keys_module.key_service("file:/x") is None


def test_a_certificate_that_is_none_is_named(tmp_path: Path) -> None:
    for path in (tmp_path / "missing", tmp_path):
        with pytest.raises(ConfigError, match="kbs_certificate="):
            key_source("kbs:https://host", path, None)


def test_a_certificate_for_a_broker_without_tls_is_a_mistake(certificate: Path) -> None:
    with pytest.raises(ConfigError, match=r"expected key_source=kbs:https://"):
        source("kbs:http://127.0.0.1:1", certificate)
