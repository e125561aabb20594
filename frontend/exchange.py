"""One request and its answer on a connection, between our protocol and the application."""

import asyncio
import logging
import socket
import struct
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

from uvicorn._types import ASGIReceiveEvent, ASGISendEvent, HTTPScope
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

from torchkeep.frontend.errors import InternalServerError
from torchkeep.frontend.responses import (
    Header,
    error_reply,
    new_request_id,
    standard_phrase,
    with_common_headers,
)

log = logging.getLogger("torchkeep.frontend")
access_log = logging.getLogger("torchkeep.access")

EXCHANGE = "torchkeep.exchange"  # extension of the scope: the Exchange itself
JOIN_BELOW_BYTES = 64 << 10  # head and body of a small response leave in one write
EMPTY_STATUS = frozenset([204, 304])
RESET_ON_CLOSE = struct.pack("ii", 1, 0)  # struct linger: on, for no time at all
ACCESS_LINE = '%s "%s %s HTTP/1.1" %d %d'


class Exchange(RequestResponseCycle):
    """One request and its response. The application may set `on_disconnect`."""

    def __init__(
        self,
        scope: HTTPScope,
        body: bytes,
        transport: asyncio.Transport,
        flow: FlowControl,
        may_keep_alive: Callable[[], bool],
        on_response: Callable[[], None],
        stall_s: float,
    ) -> None:
        super().__init__(
            scope=scope,
            transport=transport,
            flow=flow,
            logger=log,
            access_logger=access_log,
            access_log=False,
            default_headers=[],
            message_event=asyncio.Event(),
            expect_100_continue=False,
            keep_alive=True,
            on_response=on_response,
        )
        self.on_disconnect: Callable[[], None] | None = None
        self._stall_s = stall_s
        self._may_keep_alive = may_keep_alive
        self._request_body = body
        self._is_received = False
        self._pending: tuple[int, str | None, list[Header]] | None = None
        self._started = time.perf_counter()
        cast(dict[str, Any], scope)["extensions"] = {EXCHANGE: self}

    def lose_client(self) -> None:
        """The connection is gone: nobody will read the answer."""
        self.disconnected = True
        self.message_event.set()
        if self.on_disconnect is not None and not self.response_complete:
            self.on_disconnect()

    def reset(self) -> None:
        """End the connection so that nobody takes what was sent for the whole answer."""
        if not self.disconnected:
            self.disconnected = True
            sock = self.transport.get_extra_info("socket")
            if sock.family != socket.AF_UNIX:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
            self.transport.abort()

    async def receive(self) -> ASGIReceiveEvent:
        if not self._is_received:
            self._is_received = True
            return {"type": "http.request", "body": self._request_body, "more_body": False}
        await self.message_event.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: ASGISendEvent) -> None:
        if self.flow.write_paused and not self.disconnected:
            await self._drain()
        if self.disconnected:
            return
        event = cast(dict[str, Any], message)
        if event["type"] == "http.response.start":
            self._pending = (event["status"], event.get("reason"), list(event.get("headers", ())))
        else:
            self._send_body(event.get("body", b""), event.get("more_body", False))

    async def _drain(self) -> None:
        """Wait until the client has read; one that stops reading altogether is cut off."""
        unsent_before = self.transport.get_write_buffer_size()
        while self.flow.write_paused:
            try:
                async with asyncio.timeout(self._stall_s):
                    await self.flow.drain()
            except TimeoutError:
                unsent = self.transport.get_write_buffer_size()
                if unsent >= unsent_before:
                    log.warning("a client does not read its answer: its connection is cut")
                    self.reset()
                    return
                unsent_before = unsent

    async def send_500_response(self) -> None:
        """The application failed where it promised not to."""
        reply = error_reply(InternalServerError("Internal server error."))
        headers = with_common_headers(reply, new_request_id(), ())
        self._pending = (reply.status, None, headers)
        self._send_body(bytes(reply.body), more_body=False)

    def _send_body(self, body: bytes, more_body: bool) -> None:
        assert self._pending or self.response_started, "http.response.start comes first"
        assert not self.response_complete, "http.response.body after the last one"
        head = b""
        if self._pending is not None:
            head = self._head(*self._pending, length=None if more_body else len(body))
            self._pending = None
            self.response_started = True
        if self._is_bodiless:
            body = b""
        elif self.chunked_encoding:
            body = b"%x\r\n%b\r\n" % (len(body), body) if body else b""
            body += b"" if more_body else b"0\r\n\r\n"
        if head and len(body) < JOIN_BELOW_BYTES:
            self.transport.write(b"%b%b" % (head, body))
        else:
            self.transport.writelines([head, body])
        if not more_body:
            self.response_complete = True
            self.message_event.set()
            self.on_response()

    def _head(
        self, status: int, reason: str | None, headers: list[Header], length: int | None
    ) -> bytes:
        """The status line and headers; framing and `connection` are decided here alone."""
        self.keep_alive = status < 400 and self._may_keep_alive()
        self.chunked_encoding = length is None
        self._is_bodiless = self.scope["method"] == "HEAD" or status in EMPTY_STATUS
        if status not in EMPTY_STATUS:
            headers.append(
                (b"transfer-encoding", b"chunked")
                if length is None
                else (b"content-length", b"%d" % length)
            )
        headers.append((b"connection", b"keep-alive" if self.keep_alive else b"close"))
        if access_log.isEnabledFor(logging.INFO):
            self._write_access_line(status)
        return response_head(status, reason, headers)

    def _write_access_line(self, status: int) -> None:
        # The query string stays out of every log: it may hold what the client meant for us only.
        client = self.scope["client"]
        arguments = (
            f"/{client[0]}:{client[1]}" if client else "127.0.0.1",
            self.scope["method"],
            self.scope["raw_path"].decode("ascii", "backslashreplace"),
            status,
            (time.perf_counter() - self._started) * 1000,
        )
        # `access_log.info` would search the stack for its caller, at twice the cost of the rest.
        access_log.handle(
            logging.LogRecord(
                access_log.name, logging.INFO, __file__, 0, ACCESS_LINE, arguments, None
            )
        )


@dataclass(frozen=True, slots=True)
class Refusal:
    """An answer the application has no part in; its head lacks the blank line."""

    head: bytes
    body: bytes = b""
    closes: bool = True


def refusal(error: Exception) -> Refusal:
    """Error JSON that ends the connection."""
    reply = error_reply(error)
    headers = with_common_headers(reply, new_request_id(), ())
    headers.append((b"content-length", b"%d" % len(reply.body)))
    headers.append((b"connection", b"close"))
    return Refusal(response_head(reply.status, None, headers)[:-2], bytes(reply.body))


def response_head(status: int, reason: str | None, headers: list[Header]) -> bytes:
    """Status line, headers and blank line; no reason means the standard phrase."""
    phrase = standard_phrase(status) if reason is None else reason
    lines = [b"HTTP/1.1 %d %b\r\n" % (status, phrase.encode("latin-1", "replace"))]
    lines += [b"%b: %b\r\n" % header for header in headers]
    head = b"".join(lines)
    if head.count(b"\n") != len(lines) or head.count(b"\r") != len(lines):
        raise ValueError("a line break inside the head of a response")
    return head + b"\r\n"
