"""One HTTP request to a service that is not trusted to be short, quick or well-behaved.

The whole exchange has one deadline and one limit of size, goes to the address in the setting
and nowhere else (no proxy of the environment, no redirect), and ends with its connection.
"""

import asyncio
import http.client
import io
import ipaddress
import re
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

MAX_ANSWER_BYTES = 1 << 20  # attestation tokens take tens of kilobytes
DEADLINE_S = 60.0  # the Confidential Data Hub itself gives its broker 50
MAX_CHUNKS = 4096  # each costs time of the event loop, however short it is
INCOMPLETE = "its answer is no complete HTTP"

_STATUS = re.compile(rb"HTTP/1\.[01] ([2-5]\d\d)(?: [^\r\n]*)?\r\n")
_LENGTH = re.compile(r"[0-9]{1,9}")
_CHUNK = re.compile(rb"([0-9A-Fa-f]{1,8})[ \t]*(?:;[^\r\n]*)?\r\n")


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
    def authority(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"

    @property
    def is_on_this_machine(self) -> bool:
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return self.host == "localhost"

    @property
    def url(self) -> str:
        return f"{self.scheme}://{self.authority}"


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
    try:
        parts.hostname.encode("idna")
    except UnicodeError as error:
        raise ValueError(f"{parts.hostname} is no host name") from error
    scheme: Literal["http", "https"] = "https" if parts.scheme == "https" else "http"
    context = trusting(None) if scheme == "https" else None
    return Service(scheme, parts.hostname, parts.port or default_ports[parts.scheme], context)


def trusting(certificate: Path | None) -> ssl.SSLContext:
    """TLS that trusts one PEM file alone, or else the system's authorities.

    Not `create_default_context`, which writes the keys of sessions where SSLKEYLOGFILE says.
    Raises OSError, of which SSLError is one.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if certificate is None:
        context.load_default_certs()
    else:
        context.load_verify_locations(certificate)
    return context


async def fetch(
    service: Service,
    method: str,
    path: str,
    headers: Mapping[str, str],
    body: bytes = b"",
) -> Answer:
    """Raises FetchFailed."""
    lines = [f"{method} {path} HTTP/1.1", f"Host: {service.authority}"]
    lines += ["Connection: close", f"Content-Length: {len(body)}"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    if any("\r" in line or "\n" in line for line in lines):
        raise FetchFailed("a header holds a line break")
    request = "\r\n".join(lines).encode() + b"\r\n\r\n" + body
    try:
        async with asyncio.timeout(DEADLINE_S):
            received = await _converse(service, request)
    except TimeoutError as error:
        raise FetchFailed(f"it gave no complete answer in {DEADLINE_S:g} s") from error
    except ssl.SSLError as error:
        raise FetchFailed(f"TLS failed: {error.reason}") from error
    except OSError as error:
        raise FetchFailed(error.strerror or type(error).__name__) from error
    try:
        return _parse(received)
    finally:
        received[:] = bytes(len(received))


async def _converse(service: Service, request: bytes) -> bytearray:
    received = _Received()
    transport, _ = await asyncio.get_running_loop().create_connection(
        lambda: received, service.host, service.port, ssl=service.certificate_authority
    )
    try:
        transport.write(request)
        await received.ended
        return received.take()
    finally:
        # Not `close`, which says goodbye in TLS and waits for a peer who may not answer.
        transport.abort()
        received.wipe()


class _Received(asyncio.BufferedProtocol):
    """All that the service sends, in one buffer that can be overwritten.

    Streams would leave copies of a key in memory that is free, but not wiped.
    """

    def __init__(self) -> None:
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._buffer = bytearray(MAX_ANSWER_BYTES + 1)
        self._length = 0

    def get_buffer(self, sizehint: int) -> memoryview:
        # Never empty, which a transport would take for an error of ours.
        return memoryview(self._buffer)[min(self._length, MAX_ANSWER_BYTES) :]

    def buffer_updated(self, nbytes: int) -> None:
        self._length += nbytes
        if self._length > MAX_ANSWER_BYTES:
            self._end(FetchFailed(f"its answer is longer than {MAX_ANSWER_BYTES} bytes"))

    def eof_received(self) -> None:
        self._end()

    def connection_lost(self, exc: Exception | None) -> None:
        self._end(exc)

    def take(self) -> bytearray:
        return self._buffer[: self._length]

    def wipe(self) -> None:
        self._buffer[:] = bytes(len(self._buffer))

    def _end(self, error: Exception | None = None) -> None:
        if self.ended.done():
            return
        if error is None:
            self.ended.set_result(None)
        else:
            self.ended.set_exception(error)


def _parse(received: bytearray) -> Answer:
    end = received.find(b"\r\n\r\n")
    status = _STATUS.match(received)
    if end < 0 or status is None:
        raise FetchFailed(INCOMPLETE)
    try:
        headers = http.client.parse_headers(io.BytesIO(received[status.end() : end + 4]))
    except http.client.HTTPException as error:
        raise FetchFailed(INCOMPLETE) from error
    code = int(status[1])
    if 300 <= code < 400:
        raise FetchFailed(f"it redirects (status {code}), which is not followed")
    return Answer(code, headers, _body(received, end + 4, headers))


def _body(received: bytearray, start: int, headers: http.client.HTTPMessage) -> bytearray:
    length, coding = headers.get_all("Content-Length"), headers.get_all("Transfer-Encoding")
    if coding is not None:
        if length is not None or [one.strip().lower() for one in coding] != ["chunked"]:
            raise FetchFailed(INCOMPLETE)
        return _unchunked(received, start)
    if length is None:
        return received[start:]
    if len(length) > 1 or not _LENGTH.fullmatch(length[0].strip()):
        raise FetchFailed(INCOMPLETE)
    end = start + int(length[0])
    if end > len(received):
        raise FetchFailed(INCOMPLETE)
    return received[start:end]


def _unchunked(received: bytearray, start: int) -> bytearray:
    # As long as it can become: a bytearray that grows leaves its old contents behind.
    body, length = bytearray(len(received)), 0
    for _ in range(MAX_CHUNKS):
        if (chunk := _CHUNK.match(received, start)) is None:
            break
        size = int(chunk[1], 16)
        if size == 0:  # what may follow are headers
            return _shortened(body, length)
        start = chunk.end() + size
        if received[start : start + 2] != b"\r\n":
            break
        body[length : length + size] = memoryview(received)[chunk.end() : start]
        length, start = length + size, start + 2
    body[:] = bytes(len(body))
    raise FetchFailed(INCOMPLETE)


def _shortened(body: bytearray, length: int) -> bytearray:
    short = body[:length]
    body[:] = bytes(len(body))
    return short
