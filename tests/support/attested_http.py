"""A stand-in for an attested server, over real TLS: it answers with documents as it is told."""

import base64
import json
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from attested import AttestedServer
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from torchkeep.client.evidence import nonce_text


@dataclass(frozen=True, slots=True)
class Received:
    """One request, as it came."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes
    connection: int  # counted from 0


@dataclass
class HttpServer:
    """`contexts` gives the TLS of the connection with that number; None is plain http."""

    attested: AttestedServer
    contexts: Callable[[int], ssl.SSLContext | None]
    answer_attestation: Callable[[bytes], tuple[int, dict[str, str], bytes]] | None = None
    answer_prediction: Callable[[Received], tuple[int, dict[str, str], bytes]] | None = None
    received: list[Received] = field(default_factory=list)
    url: str = ""

    def paths(self) -> list[str]:
        return [urlsplit(one.path).path for one in self.received]

    @contextmanager
    def listening(self, port: int = 0) -> Iterator["HttpServer"]:
        server = _Listener(self, port)
        scheme = "http" if self.contexts(0) is None else "https"
        self.url = f"{scheme}://127.0.0.1:{server.server_address[1]}"
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        try:
            yield self
        finally:
            server.shutdown()
            server.close_connections()
            server.server_close()
            thread.join()


def tls_context(key: ec.EllipticCurvePrivateKey, certificate: bytes, place: Path) -> ssl.SSLContext:
    """TLS with this certificate (DER)."""
    secret = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
    place.write_text(secret + ssl.DER_cert_to_PEM_cert(certificate))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(place)
    return context


def own_context(server: AttestedServer, place: Path) -> ssl.SSLContext:
    return tls_context(server.key, server.certificate(), place)


class _Listener(ThreadingHTTPServer):
    daemon_threads = False

    def __init__(self, standin: HttpServer, port: int) -> None:
        self.standin = standin
        self.accepted = 0
        self.sockets: list[Any] = []
        super().__init__(("127.0.0.1", port), _Handler)

    def get_request(self) -> tuple[Any, Any]:
        connection, address = super().get_request()
        connection.settimeout(30)
        self.sockets.append(connection)
        return connection, (self.accepted_now(), *address)

    def accepted_now(self) -> int:
        self.accepted += 1
        return self.accepted - 1

    def close_connections(self) -> None:
        for one in self.sockets:
            try:
                one.shutdown(2)
            except OSError:
                continue

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients that leave in a handshake are what is tested."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: _Listener

    def setup(self) -> None:
        self.number = self.client_address[0]
        context = self.server.standin.contexts(self.number)
        if context is not None:
            self.request = context.wrap_socket(self.request, server_side=True)
            self.server.sockets.append(self.request)
        super().setup()

    def finish(self) -> None:
        super().finish()
        self.request.close()

    def handle_any(self) -> None:
        standin = self.server.standin
        body = self._body()
        headers = {name.lower(): value for name, value in self.headers.items()}
        standin.received.append(Received(self.command, self.path, headers, body, self.number))
        if urlsplit(self.path).path.endswith("/attestation"):
            nonce = _nonce(parse_qs(urlsplit(self.path).query)["nonce"][0])
            status, extra, answer = 200, dict[str, str](), b""
            if standin.answer_attestation is not None:
                status, extra, answer = standin.answer_attestation(nonce)
            else:
                answer = standin.attested.document(nonce)
            self._answer(status, extra, answer)
        elif standin.answer_prediction is not None:
            self._answer(*standin.answer_prediction(standin.received[-1]))
        elif self.path.endswith("/pieces"):
            self.send_response(200)
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            for piece in (b"one ", b"two"):
                self.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece))
            self.wfile.write(b"0\r\n\r\n")
        else:
            said = json.dumps({"path": self.path, "length": len(body)}).encode()
            self._answer(200, {"Content-Type": "application/json"}, said)

    do_GET = do_POST = do_PUT = do_DELETE = handle_any

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding", "") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        body = b""
        while size := int(self.rfile.readline(), 16):
            body += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return body

    def _answer(self, status: int, headers: dict[str, str], body: bytes) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Not to the terminal."""


def _nonce(text: str) -> bytes:
    nonce = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
    assert nonce_text(nonce) == text
    return nonce
