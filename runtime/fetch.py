"""One HTTP request to a service that is not trusted to be short, quick or well-behaved.

The whole exchange has one deadline and one limit of size, goes to the address in the setting
and nowhere else (no proxy of the environment, no redirect), and ends with its connection.
"""

import asyncio
import http.client
import io
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal
from urllib.parse import urlsplit

MAX_ANSWER_BYTES = 1 << 20  # attestation tokens take tens of kilobytes
DEADLINE_S = 60.0  # the Confidential Data Hub itself gives its broker 50


class FetchFailed(Exception):
    """There is no answer; the text says why, and holds nothing of what came."""


@dataclass(frozen=True, slots=True)
class Service:
    """Where to connect to."""

    scheme: Literal["http", "https"]
    host: str
    port: int
    certificate_authority: ssl.SSLContext | None = None  # for https

    @property
    def url(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{host}:{self.port}"


@dataclass(slots=True)
class Answer:
    """`body` is for the caller to overwrite where it holds a secret."""

    status: int
    headers: http.client.HTTPMessage
    body: bytearray


def parse_service(url: str, default_ports: Mapping[str, int]) -> Service:
    """The service at `scheme://host[:port]`; raises ValueError."""
    parts = urlsplit(url)
    is_plain = not (parts.query or parts.fragment or parts.username or parts.password)
    if parts.scheme not in default_ports or not parts.hostname or not is_plain:
        raise ValueError(f"expected {' or '.join(default_ports)}://host[:port]")
    if parts.path not in ("", "/"):
        raise ValueError("expected no path behind the host")
    scheme: Literal["http", "https"] = "https" if parts.scheme == "https" else "http"
    context = ssl.create_default_context() if scheme == "https" else None
    return Service(scheme, parts.hostname, parts.port or default_ports[parts.scheme], context)


async def fetch(
    service: Service,
    method: str,
    path: str,
    headers: Mapping[str, str],
    body: bytes = b"",
    deadline_s: float = DEADLINE_S,
) -> Answer:
    """Raises FetchFailed."""
    lines = [f"{method} {path} HTTP/1.1", f"Host: {service.host}:{service.port}"]
    lines += ["Connection: close", f"Content-Length: {len(body)}"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    if any("\r" in line or "\n" in line for line in lines):
        raise FetchFailed("a header holds a line break")
    request = "\r\n".join(lines).encode() + b"\r\n\r\n" + body
    try:
        async with asyncio.timeout(deadline_s):
            received = await _converse(service, request)
    except TimeoutError as error:
        raise FetchFailed(f"it gave no complete answer in {deadline_s:g} s") from error
    except ssl.SSLError as error:
        raise FetchFailed(f"TLS failed: {error.reason}") from error
    except OSError as error:
        raise FetchFailed(error.strerror or type(error).__name__) from error
    try:
        return _parse(received, method)
    finally:
        received[:] = bytes(len(received))


async def _converse(service: Service, request: bytes) -> bytearray:
    reader, writer = await asyncio.open_connection(
        service.host, service.port, ssl=service.certificate_authority
    )
    try:
        writer.write(request)
        await writer.drain()
        received = bytearray()
        while piece := await reader.read(1 << 16):
            received += piece
            if len(received) > MAX_ANSWER_BYTES:
                raise FetchFailed(f"its answer is longer than {MAX_ANSWER_BYTES} bytes")
        return received
    finally:
        # Not `close`, which says goodbye in TLS and waits for a peer who may not answer.
        writer.transport.abort()


class _Received:
    """What `HTTPResponse` takes for a socket."""

    def __init__(self, data: bytearray) -> None:
        self._data = data

    def makefile(self, mode: str) -> io.BytesIO:
        return io.BytesIO(self._data)


def _parse(received: bytearray, method: str) -> Answer:
    response = http.client.HTTPResponse(_Received(received), method=method)  # type: ignore[arg-type]
    try:
        response.begin()
        body = bytearray(response.read())
    except (http.client.HTTPException, ValueError, OSError) as error:
        raise FetchFailed("its answer is no complete HTTP") from error
    if 300 <= response.status < 400:
        raise FetchFailed(f"it redirects (status {response.status}), which is not followed")
    return Answer(response.status, response.headers, body)
