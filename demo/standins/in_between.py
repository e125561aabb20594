"""A STAND-IN for whoever stands between client and server: a gateway that ends TLS, or an attacker.

It reads and keeps all that passes, and can be told to change it. `misbehave` answers in the
server's place.
"""

import http.client
import ssl
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from standins.key_services import Handler, StandIn

from torchkeep.runtime.tls import self_signed

TIMEOUT_S = 60
HOP = {"connection", "content-length", "date", "host", "keep-alive", "server", "transfer-encoding"}


@dataclass(frozen=True, slots=True)
class Passed:
    """One request, as it came."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes


class InBetween(StandIn):
    """Passes requests on to `upstream`, the address of a server; whose certificate it takes as is.

    Bodies go through `change_request` and `change_answer`.
    """

    def __init__(self, upstream: str) -> None:
        super().__init__()
        self.read = bytearray()  # of both directions
        self.passed: list[Passed] = []
        self.change_request: Callable[[bytes], bytes] = bytes
        self.change_answer: Callable[[bytes], bytes] = bytes
        self.known_by: ssl.SSLContext | None = None  # for clients that trust its certificate
        self._upstream = urlsplit(upstream)

    @contextmanager
    def ending_tls(self, place: Path) -> Iterator["InBetween"]:
        """Listen with a certificate of its own, which it keeps as a file at `place`."""
        certificate, key = self_signed(["127.0.0.1"])
        pem = certificate.public_bytes(Encoding.PEM)
        place.write_bytes(
            key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()) + pem
        )
        self.known_by = ssl.create_default_context(cadata=pem.decode())
        with self.listening(place):
            yield self

    def serve(self, request: Handler) -> None:
        headers = {name.lower(): value for name, value in request.headers.items()}
        passed = Passed(request.command, request.path, headers, request.body)
        self.passed.append(passed)
        status, answered, body = self.send(passed, self.change_request)
        body = self.change_answer(body)
        request.send_response(status)
        for name, value in [*answered, ("content-length", str(len(body)))]:
            request.send_header(name, value)
        request.end_headers()
        request.wfile.write(body)

    def send(
        self, passed: Passed, change: Callable[[bytes], bytes] = bytes
    ) -> tuple[int, list[tuple[str, str]], bytes]:
        """Pass a request on, also one that was passed on before."""
        connection = self._connection()
        headers = {name: value for name, value in passed.headers.items() if name not in HOP}
        try:
            body = change(passed.body)
            connection.request(passed.method, passed.path, body or None, headers)
            response = connection.getresponse()
            answered = [
                (name.lower(), value)
                for name, value in response.getheaders()
                if name.lower() not in HOP
            ]
            content = response.read()
        finally:
            connection.close()
        self.read += f"{passed.method} {passed.path}\n{headers}\n".encode() + passed.body
        self.read += f"{answered}\n".encode() + content
        return response.status, answered, content

    def _connection(self) -> http.client.HTTPConnection:
        if self._upstream.scheme == "http":
            return http.client.HTTPConnection(self._upstream.netloc, timeout=TIMEOUT_S)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        return http.client.HTTPSConnection(
            self._upstream.netloc, timeout=TIMEOUT_S, context=context
        )
