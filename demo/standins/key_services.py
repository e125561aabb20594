"""STAND-INS, for demo and tests, never shipped: who keeps the keys, and whom it trusts.

Over real sockets. Agent and data hub answer byte for byte as the api-server-rest of Confidential
Containers' guest components; the broker speaks RCAR with real keys and real JWE, and checks
evidence as its verifier does: of the sample TEE, or simulated quotes under their simulated root.
All can be told to misbehave: `misbehave` gets each request first, and answers it in its own way by
returning True.
"""

import base64
import hashlib
import json
import secrets
import ssl
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Self
from urllib.parse import parse_qs

import dcap_qvl
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.concatkdf import ConcatKDFHash
from cryptography.hazmat.primitives.keywrap import aes_key_wrap

from torchkeep.client.policy import measured
from torchkeep.runtime import simulated_tee
from torchkeep.runtime.quote import parse_quote

Misbehave = Callable[["Handler"], bool]


class Handler(BaseHTTPRequestHandler):
    """One request; `service` is the stand-in."""

    protocol_version = "HTTP/1.1"
    service: Any

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        self._take()

    def do_POST(self) -> None:
        self._take()

    def answer(
        self, status: int, body: bytes | Any, kind: str = "text/plain", **headers: str
    ) -> None:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        self.send_header("content-type", kind)
        self.send_header("content-length", str(len(data)))
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(data)

    def _take(self) -> None:
        self.body = self.rfile.read(int(self.headers.get("content-length", "0")))
        self.close_connection = True
        self.service.requests.append(f"{self.command} {self.path}")
        try:
            if self.service.misbehave is None or not self.service.misbehave(self):
                self.service.serve(self)
        except (BrokenPipeError, ConnectionResetError):
            pass


class StandIn:
    """Where it listens, what it keeps, and what it was asked."""

    def __init__(self) -> None:
        self.resources: dict[str, bytes] = {}
        self.requests: list[str] = []
        self.misbehave: Misbehave | None = None
        self.released = threading.Event()  # set at the end, for those that wait
        self.address = ""

    def serve(self, request: Handler) -> None:
        raise NotImplementedError

    @contextmanager
    def listening(self, certificate: Path | None = None, port: int = 0) -> Iterator[Self]:
        """On a port of its own; over TLS with `certificate`, a PEM file with its key."""
        handler = type("Bound", (Handler,), {"service": self})
        server = _Listener(("127.0.0.1", port), handler)
        server.daemon_threads = True
        scheme = "http"
        if certificate is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(certificate)
            server.socket = context.wrap_socket(server.socket, server_side=True)
            scheme = "https"
        self.port = server.server_address[1]
        self.address = f"{scheme}://127.0.0.1:{self.port}"
        thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        try:
            yield self
        finally:
            self.released.set()
            server.shutdown()
            server.server_close()
            thread.join()


class _Listener(ThreadingHTTPServer):
    def handle_error(self, request: Any, client_address: Any) -> None:
        # Clients that leave early are what is tried out; all else is a fault of ours.
        if not isinstance(sys.exception(), OSError):
            super().handle_error(request, client_address)


class DataHub(StandIn):
    """The REST server of a pod: resources, and its words for everything else."""

    is_resource_enabled = True

    def serve(self, request: Handler) -> None:
        path = request.path
        if not path.startswith("/cdh/"):
            request.answer(404, b"URL NOT FOUND")
        elif not self.is_resource_enabled:
            request.answer(404, b"Resource Feature Not Enabled")
        elif not path.startswith("/cdh/resource/") or path.count("/") != 5:
            request.answer(404, b"URL NOT FOUND")
        elif (found := self.resources.get(path.removeprefix("/cdh/resource/"))) is not None:
            request.answer(200, found, "application/octet-stream")
        else:
            request.answer(
                500,
                b'rpc status: Status { code: INTERNAL, message: "[CDH] [ERROR]: Get Resource '
                b'failed", details: [] }: kbs: resource not found',
            )


class Agent(DataHub):
    """The same server with its attestation half: evidence, and the log of runtime events.

    `quote` makes a TDX quote for 64 bytes; an `is_old` agent is one before release 0.21.
    """

    def __init__(self, quote: Callable[[bytes], bytes]) -> None:
        super().__init__()
        self.quote = quote
        self.is_old = False
        self.is_attestation_enabled = True
        self.has_event_log = True
        self.events: list[dict[str, str]] = []

    def serve(self, request: Handler) -> None:
        path, _, query = request.path.partition("?")
        if not path.startswith("/aa/"):
            super().serve(request)
        elif not self.is_attestation_enabled:
            request.answer(404, b"Attestation Feature Not Enabled")
        elif (request.command, path) == ("GET", "/aa/evidence"):
            self._evidence(request, parse_qs(query))
        elif (request.command, path) == ("POST", "/aa/aael"):
            self._event(request)
        else:
            request.answer(404, b"URL NOT FOUND")

    def _evidence(self, request: Handler, query: dict[str, list[str]]) -> None:
        data = query.get("runtime_data", [""])[0].encode()
        if not self.is_old and query.get("encoding") == ["base64"]:
            data = base64.urlsafe_b64decode(data + b"=" * (-len(data) % 4))
        if not 0 < len(data) <= 64 and not self.is_old:
            request.answer(400, b"BAD REQUEST")
            return
        quote = base64.b64encode(self.quote(data[:64].ljust(64, b"\0"))).decode()
        body = json.dumps({"cc_eventlog": None, "quote": quote}).encode()
        request.answer(200, body, "application/octet-stream")

    def _event(self, request: Handler) -> None:
        try:
            event = json.loads(request.body)
        except ValueError:
            request.answer(500, b"invalid json")
            return
        assert set(event) == {"domain", "operation", "content"}
        if self.has_event_log:
            self.events.append(event)
            request.answer(200, {"success": "true"}, "application/octet-stream")
        else:
            said = {"success": "false", "message": "no event log"}
            request.answer(200, said, "application/octet-stream")


class Broker(StandIn):
    """A Key Broker Service with sessions, evidence, reference values, tokens and a policy.

    As with Trustee, evidence that holds gets a token whatever was measured; the resource policy
    then asks whether that has the reference values.
    """

    def __init__(self) -> None:
        super().__init__()
        self.is_sample_accepted = True
        self.is_policy_open = True
        self.hash_algorithm: str | None = "sha384"
        # By the names that policies of clients have; what is not named may be anything.
        self.reference_values = {"mr_td": simulated_tee.measurement("MRTD")}
        self.mr_tds_seen: list[bytes] = []
        self.refusals: list[str] = []  # why; whoever was refused is not told
        self._sessions: dict[str, dict[str, Any]] = {}

    def serve(self, request: Handler) -> None:
        match request.command, request.path:
            case "POST", "/kbs/v0/auth":
                self._auth(request)
            case "POST", "/kbs/v0/attest":
                self._attest(request)
            case "GET", path if path.startswith("/kbs/v0/resource/"):
                self._resource(request, path.removeprefix("/kbs/v0/resource/"))
            case _:
                self._refuse(request, 404, "PluginNotFound")

    def _auth(self, request: Handler) -> None:
        asked = json.loads(request.body)
        assert asked["version"] == "0.4.0"
        session, nonce = secrets.token_hex(16), base64.b64encode(secrets.token_bytes(32)).decode()
        self._sessions[session] = {"nonce": nonce, "tee": asked["tee"]}
        extra: Any = ""
        if self.hash_algorithm:
            assert self.hash_algorithm in asked["extra-params"]["supported-hash-algorithms"]
            extra = {"selected-hash-algorithm": self.hash_algorithm}
        request.answer(
            200,
            {"nonce": nonce, "extra-params": extra},
            "application/json",
            Set_Cookie=f"kbs-session-id={session}; Path=/kbs; Max-Age=300",
        )

    def _attest(self, request: Handler) -> None:
        session = self._session(request)
        if session is None:
            self._refuse(request, 401, "InvalidCookie")
            return
        said = json.loads(request.body)
        runtime_data, evidence = said["runtime-data"], said["tee-evidence"]
        claimed = self._claimed(session, evidence["primary_evidence"])
        agreed = {**runtime_data, "additional-evidence": evidence["additional_evidence"]}
        text = json.dumps(agreed, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
        expected = hashlib.new(self.hash_algorithm or "sha384", text.encode()).digest()
        is_right = runtime_data["nonce"] == session["nonce"] and claimed == expected.ljust(
            64, b"\0"
        )
        if not is_right:
            self._refuse(request, 401, "AttestationError")
            return
        session["key"] = runtime_data["tee-pubkey"]
        session["token"] = secrets.token_hex(16)
        request.answer(200, {"token": session["token"]}, "application/json")

    def _claimed(self, session: dict[str, Any], evidence: dict[str, Any]) -> bytes | None:
        """The report data, if its verifier agrees to the evidence."""
        if session["tee"] == "sample":
            return base64.b64decode(evidence["report_data"]) if self.is_sample_accepted else None
        raw, now = base64.b64decode(evidence["quote"]), int(time.time())
        collateral = dcap_qvl.QuoteCollateralV3.from_json(simulated_tee.collateral(now))
        root = simulated_tee.root_certificate()
        try:
            status = dcap_qvl.verify_with_root_ca(raw, collateral, root, now).status
        except ValueError as error:
            self.refusals.append(f"quote: {' '.join(str(error).split())}")
            return None
        found = measured(parse_quote(raw).report)
        self.mr_tds_seen.append(found["mr_td"])
        session["unexpected"] = [
            name for name, value in self.reference_values.items() if found[name] != value
        ]
        return parse_quote(raw).report.report_data if status == "UpToDate" else None

    def _resource(self, request: Handler, path: str) -> None:
        session = self._session(request) or {}
        token = request.headers.get("authorization", "").removeprefix("Bearer ")
        if "token" not in session or token != session["token"]:
            self._refuse(request, 401, "TokenNotFound")
        elif not self.is_policy_open or session.get("unexpected"):
            self.refusals += [
                f"{name}: not the reference value" for name in session.get("unexpected", ())
            ]
            self._refuse(request, 401, "PolicyDeny")
        elif path not in self.resources:
            self._refuse(request, 404, "ResourceNotFound")
        else:
            jwe = seal_to(session["key"], self.resources[path])
            request.answer(200, jwe, "application/json")

    def _session(self, request: Handler) -> dict[str, Any] | None:
        cookie = request.headers.get("cookie", "")
        return self._sessions.get(cookie.removeprefix("kbs-session-id="))

    def _refuse(self, request: Handler, status: int, kind: str) -> None:
        problem = f"https://github.com/confidential-containers/kbs/errors/{kind}"
        request.answer(status, {"type": problem, "detail": "on purpose"}, "application/json")


def seal_to(jwk: dict[str, str], secret: bytes, **changed: Any) -> dict[str, Any]:
    """A JWE in flattened JSON, by ECDH-ES+A256KW and A256GCM; `changed` is for its header."""
    x, y = (int.from_bytes(_decode(jwk[name]), "big") for name in ("x", "y"))
    theirs = ec.EllipticCurvePublicNumbers(x, y, ec.SECP256R1()).public_key()
    ours = ec.generate_private_key(ec.SECP256R1())
    numbers = ours.public_key().public_numbers()
    epk = {"kty": "EC", "crv": "P-256"}
    epk |= {n: _encode(getattr(numbers, n).to_bytes(32, "big")) for n in ("x", "y")}
    header = {"alg": "ECDH-ES+A256KW", "enc": "A256GCM", "epk": epk, **changed}
    protected = _encode(json.dumps(header).encode())
    name = b"ECDH-ES+A256KW"
    info = len(name).to_bytes(4, "big") + name + bytes(8) + (256).to_bytes(4, "big")
    kek = ConcatKDFHash(SHA256(), 32, info).derive(ours.exchange(ec.ECDH(), theirs))
    key, iv = secrets.token_bytes(32), secrets.token_bytes(12)
    sealed = AESGCM(key).encrypt(iv, secret, protected.encode())
    return {
        "protected": protected,
        "encrypted_key": _encode(aes_key_wrap(kek, key)),
        "iv": _encode(iv),
        "ciphertext": _encode(sealed[:-16]),
        "tag": _encode(sealed[-16:]),
    }


def _encode(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _decode(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
