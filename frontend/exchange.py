"""One request and its answer on a connection, between our protocol and the application."""

import asyncio
import logging
import socket
import struct
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from starlette.types import ASGIApp, Message
from uvicorn.protocols.http.flow_control import FlowControl

from torchkeep.frontend.errors import InternalServerError
from torchkeep.frontend.responses import (
    Header,
    error_reply,
    new_request_id,
    standard_phrase,
    with_common_headers,
)
from torchkeep.runtime.logs import AccessLog
from torchkeep.runtime.messages import Body

log = logging.getLogger("torchkeep.frontend")

EXCHANGE = "torchkeep.exchange"  # extension of the scope: the Exchange itself
JOIN_BELOW_BYTES = 64 << 10  # head and body of a small response leave in one write
EMPTY_STATUS = frozenset([204, 304])
RESET_ON_CLOSE = struct.pack("ii", 1, 0)  # struct linger: on, for no time at all


class Connection(Protocol):
    """What an exchange needs of the connection that it is a part of."""

    transport: asyncio.Transport
    flow: FlowControl
    access_lines: AccessLog | None
    stall_s: float

    def may_keep_alive(self) -> bool:
        """Whether the connection may go on after this answer."""
        ...

    def next(self) -> None:
        """The answer is written."""
        ...

    def start_task(self, exchange: "Exchange", app: ASGIApp) -> None:
        """Let an ASGI application answer, in a task of its own."""
        ...


class Exchange:
    """One request and its response: by `respond` at once, or by ASGI's `receive` and `send`.

    The application may set `on_disconnect`.
    """

    __slots__ = (
        "_connection",
        "_flow",
        "_gone",
        "_is_bodiless",
        "_is_chunked",
        "_is_complete",
        "_is_received",
        "_is_started",
        "_pending",
        "_started",
        "_transport",
        "disconnected",
        "keep_alive",
        "on_disconnect",
        "request_body",
        "scope",
    )

    def __init__(self, scope: dict[str, Any], body: bytes, connection: Connection) -> None:
        self.scope = scope
        self.request_body = body
        self.disconnected = False
        self.keep_alive = True
        self.on_disconnect: Any = None
        self._connection = connection
        self._transport = connection.transport
        self._flow = connection.flow
        self._gone: asyncio.Event | None = None
        self._is_received = False
        self._is_started = False  # the head is written
        self._is_complete = False
        self._is_chunked = False
        self._is_bodiless = False
        self._pending: tuple[int, str | None, list[Header]] | None = None
        self._started = time.perf_counter()
        scope["extensions"] = {EXCHANGE: self}

    @property
    def can_respond(self) -> bool:
        """False while the client has yet to read earlier answers: then `send` waits for it."""
        return not self._flow.write_paused

    def respond(self, status: int, reason: str | None, headers: list[Header], body: Body) -> None:
        """The whole answer; no reason means the standard phrase. Nobody reads it: no error."""
        if not self.disconnected:
            self._pending = (status, reason, headers)
            self._send_body(body, more_body=False)

    def start_task(self, app: ASGIApp) -> None:
        """Go on with an answer that takes more than one piece."""
        self._connection.start_task(self, app)

    async def run(self, app: ASGIApp) -> None:
        """The task: whatever the application does, the exchange comes to an end."""
        try:
            await app(self.scope, self.receive, self.send)
        except BaseException as error:
            log.error("the application failed", exc_info=error)
        if self._is_complete or self.disconnected:
            return
        if self._is_started:
            log.error("an answer was not completed: its connection is closed")
            self._transport.close()
        else:
            self._fail()

    def lose_client(self) -> None:
        """The connection is gone: nobody will read the answer."""
        self.disconnected = True
        if self._gone is not None:
            self._gone.set()
        if self.on_disconnect is not None and not self._is_complete:
            self.on_disconnect()

    def reset(self) -> None:
        """End the connection so that nobody takes what was sent for the whole answer."""
        if not self.disconnected:
            self.disconnected = True
            sock = self._transport.get_extra_info("socket")
            if sock.family != socket.AF_UNIX:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
            self._transport.abort()

    async def receive(self) -> Message:
        if not self._is_received:
            self._is_received = True
            return {"type": "http.request", "body": self.request_body, "more_body": False}
        if not self.disconnected and not self._is_complete:
            self._gone = self._gone or asyncio.Event()
            await self._gone.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Message) -> None:
        if self._flow.write_paused and not self.disconnected:
            await self._drain()
        if self.disconnected:
            return
        if message["type"] == "http.response.start":
            headers = list(message.get("headers", ()))
            self._pending = (message["status"], message.get("reason"), headers)
        else:
            self._send_body(message.get("body", b""), message.get("more_body", False))

    async def _drain(self) -> None:
        """Wait until the client has read; one that stops reading altogether is cut off."""
        unsent_before = self._transport.get_write_buffer_size()
        while self._flow.write_paused:
            try:
                async with asyncio.timeout(self._connection.stall_s):
                    await self._flow.drain()
            except TimeoutError:
                unsent = self._transport.get_write_buffer_size()
                if unsent >= unsent_before:
                    log.warning("a client does not read its answer: its connection is cut")
                    self.reset()
                    return
                unsent_before = unsent

    def _fail(self) -> None:
        """The application failed where it promised not to."""
        reply = error_reply(InternalServerError("Internal server error."))
        headers = with_common_headers(reply, new_request_id(), ())
        self.respond(reply.status, None, headers, reply.body)

    def _send_body(self, body: Body, more_body: bool) -> None:
        assert self._pending or self._is_started, "http.response.start comes first"
        assert not self._is_complete, "http.response.body after the last one"
        head = b""
        if self._pending is not None:
            head = self._head(*self._pending, length=None if more_body else len(body))
            self._pending = None
            self._is_started = True
        if self._is_bodiless:
            body = b""
        elif self._is_chunked:
            body = b"".join((b"%x\r\n" % len(body), body, b"\r\n")) if body else b""
            body += b"" if more_body else b"0\r\n\r\n"
        if head and len(body) < JOIN_BELOW_BYTES:
            self._transport.write(b"".join((head, body)))
        else:
            self._transport.writelines([head, body])
        if not more_body:
            self._is_complete = True
            if self._gone is not None:
                self._gone.set()
            self._connection.next()

    def _head(
        self, status: int, reason: str | None, headers: list[Header], length: int | None
    ) -> bytes:
        """The status line and headers; framing and `connection` are decided here alone."""
        self.keep_alive = status < 400 and self._connection.may_keep_alive()
        self._is_chunked = length is None
        self._is_bodiless = self.scope["method"] == "HEAD" or status in EMPTY_STATUS
        if status not in EMPTY_STATUS:
            headers.append(
                (b"transfer-encoding", b"chunked")
                if length is None
                else (b"content-length", b"%d" % length)
            )
        headers.append((b"connection", b"keep-alive" if self.keep_alive else b"close"))
        if self._connection.access_lines is not None:
            self._connection.access_lines.add(
                self.scope["client"],
                self.scope["method"],
                self.scope["raw_path"],
                status,
                (time.perf_counter() - self._started) * 1000,
                self.scope["http_version"],
            )
        return response_head(status, reason, headers)


@dataclass(frozen=True, slots=True)
class Refusal:
    """An answer the application has no part in; its head lacks the blank line."""

    head: bytes
    body: bytes = b""
    closes: bool = True
    status: int = 0  # 0: TorchServe neither counts it nor writes a line about it


def refusal(error: Exception, cors: Sequence[Header] = ()) -> Refusal:
    """Error JSON that ends the connection."""
    reply = error_reply(error)
    headers = with_common_headers(reply, new_request_id(), cors)
    headers.append((b"content-length", b"%d" % len(reply.body)))
    headers.append((b"connection", b"close"))
    head = response_head(reply.status, None, headers)[:-2]
    return Refusal(head, bytes(reply.body), status=reply.status)


def response_head(status: int, reason: str | None, headers: list[Header]) -> bytes:
    """Status line, headers and blank line; no reason means the standard phrase."""
    phrase = standard_phrase(status) if reason is None else reason
    lines = [b"HTTP/1.1 %d %b\r\n" % (status, phrase.encode("latin-1", "replace"))]
    lines += [b"%b: %b\r\n" % header for header in headers]
    head = b"".join(lines)
    if head.count(b"\n") != len(lines) or head.count(b"\r") != len(lines):
        raise ValueError("a line break inside the head of a response")
    return head + b"\r\n"
