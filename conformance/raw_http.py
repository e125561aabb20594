"""One request over a socket of its own; the answer as it came over the wire.

No HTTP library: the facts are about the spelling of header names, the reason phrase, the
chunks of a stream, and who ends the connection and how, which libraries hide.
"""

import socket
from dataclasses import dataclass
from typing import BinaryIO
from urllib.parse import urlsplit


@dataclass(frozen=True)
class Answer:
    status: int
    reason: str
    headers: list[tuple[str, str]]
    body: bytes
    is_closed: bool
    chunks: list[bytes] | None = None  # where the body came in chunks; without the last one
    is_reset: bool = False  # the connection broke before the body was complete

    def header(self, name: str) -> str | None:
        for key, value in self.headers:
            if key.lower() == name.lower():
                return value
        return None


def send(
    base_url: str,
    method: str,
    path: str,
    headers: tuple[tuple[str, str], ...] = (),
    body: bytes = b"",
    timeout_s: float = 60,
) -> Answer:
    """Send one request with exactly these headers (plus host and content-length)."""
    lines = [f"{method} {path} HTTP/1.1", "Host: localhost"]
    lines += [f"{name}: {value}" for name, value in headers]
    if body:
        lines.append(f"Content-Length: {len(body)}")
    head = "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n"
    return send_raw(base_url, head + body, is_head=method == "HEAD", timeout_s=timeout_s)


def send_raw(
    base_url: str, request: bytes, *, is_head: bool = False, timeout_s: float = 60
) -> Answer:
    address = urlsplit(base_url)
    with socket.create_connection((address.hostname, address.port), timeout=timeout_s) as peer:
        peer.sendall(request)
        received = peer.makefile("rb")
        status_line = received.readline().decode("latin-1").rstrip("\r\n")
        if not status_line:
            raise ConnectionError("closed without an answer")
        _, _, rest = status_line.partition(" ")
        status, _, reason = rest.partition(" ")
        headers = []
        while line := received.readline().decode("latin-1").rstrip("\r\n"):
            name, _, value = line.partition(":")
            headers.append((name, value.strip()))
        answer = Answer(int(status), reason, headers, b"", is_closed=False)
        chunks: list[bytes] | None = None
        is_reset = False
        if answer.header("transfer-encoding") == "chunked" and not is_head:
            chunks, is_reset = read_chunks(received)
            body = b"".join(chunks)
        else:
            length = 0 if is_head else int(answer.header("content-length") or 0)
            body = received.read(length)
        is_closed = is_reset or _is_closed(peer, answer.header("connection") == "close")
    return Answer(int(status), reason, headers, body, is_closed, chunks, is_reset)


def read_chunks(received: BinaryIO) -> tuple[list[bytes], bool]:
    """The chunks up to the last one, and whether the connection was reset before it.

    Raises ConnectionError where it ended without the last chunk, but in good order.
    """
    chunks = []
    try:
        while line := received.readline():
            length = int(line, 16)
            chunk, end = received.read(length), received.readline()
            if end == b"\r\n" and length:
                chunks.append(chunk)
            elif end == b"\r\n":
                return chunks, False
    except ConnectionResetError:
        return chunks, True
    raise ConnectionError("closed in the middle of a chunked body")


def _is_closed(peer: socket.socket, is_expected: bool) -> bool:
    """True when the server ends the connection; it gets long only where it said it would."""
    peer.settimeout(2 if is_expected else 0.05)
    try:
        return peer.recv(1) == b""
    except ConnectionResetError:
        return True
    except TimeoutError:
        return False
