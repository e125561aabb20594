"""uvicorn's httptools protocol, taught what TorchServe's clients expect.

Like the aggregator in TorchServe's pipeline, the protocol collects a whole request before the
application hears of it. So the size limit holds before anything is routed, a slow client costs
a buffer and a timer instead of a task, and `receive` never waits.

An application may have a method `begin(exchange) -> bool` that takes a request without a task,
and calls `exchange.respond` when the answer is there; whatever it does not take is asked of it
as ASGI has it. Its `cors_headers`, if it has any, are on our own error answers too, and its
`refused(status)` hears of them.

A connection moves through these states; one deadline guards whichever it is in:

    idle --first byte--> head --blank line--> body --last byte--> answering --> idle
      `- keep_alive_s      `- head_s            `- body_s of silence   `- the application's own
                                                or too slow in all
"""

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, cast
from urllib.parse import unquote

import httptools
from starlette.types import ASGIApp
from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from torchkeep.frontend.deadline import Deadline
from torchkeep.frontend.errors import BadRequest, RequestTimeout
from torchkeep.frontend.exchange import Exchange, Refusal, refusal
from torchkeep.frontend.responses import Header
from torchkeep.runtime.logs import AccessLog

log = logging.getLogger("torchkeep.frontend")

MAX_HEAD_BYTES = 64 << 10  # request line and headers; far above what proxies let through
MAX_OVERHEAD = 16  # bytes of chunk framing per byte of body, before it is an attack
LINGER_S = 2.0  # how long a refused client may still read our answer

TOO_LARGE = b"HTTP/1.1 413 Request Entity Too Large\r\ncontent-length: 0\r\n"
UNEXPECTED = b"HTTP/1.1 417 Expectation Failed\r\ncontent-length: 0\r\n"
REFUSED_PATH = b"/bad-request"  # TorchServe: in its access log, what malformed HTTP asked for


@dataclass(frozen=True, slots=True)
class Limits:
    """What one connection may cost."""

    max_request_bytes: int = 6553500
    head_s: float = 60.0
    body_s: float = 60.0  # without progress, of a request or of an answer
    body_bytes_per_s: int = 500  # of a request, from `body_s` on; Apache's default
    keep_alive_s: float = 300.0
    handshake_s: float = 30.0  # of TLS, from the first moment of a connection
    drain_grace_s: float = 0.5  # an idle connection's last chance to send, when we stop


class ListenerState(ServerState):
    """What the connections of one listener share."""

    def __init__(self, limits: Limits, access_log: AccessLog | None = None) -> None:
        super().__init__()
        self.limits = limits
        self.access_log = access_log
        self.is_draining = False


class HttpProtocol(HttpToolsProtocol):
    """One connection."""

    def __init__(
        self,
        config: Config,
        server_state: ListenerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self._state = server_state
        self._limits = server_state.limits
        self.access_lines = server_state.access_log
        self.stall_s = server_state.limits.body_s
        self._begin: Callable[[Exchange], bool] | None = getattr(self.app, "begin", None)
        self._cors: Sequence[Header] = getattr(self.app, "cors_headers", ())
        self._count_refusal: Callable[[int], object] = getattr(self.app, "refused", lambda _: None)
        self.parser = _new_parser(self)
        self._active: Exchange | None = None
        self._waiting: deque[Exchange | Refusal] = deque()  # pipelined, in order
        self._deadline = Deadline(self.loop)
        self._is_deaf = False  # what still arrives is not read: a refusal is on its way
        self._is_over = False  # nothing is written any more either
        self._is_receiving = False
        self._is_replaying = False
        self._unsent_bytes = 0  # when we last looked whether the client still reads
        self._begun = 0  # requests in the data at hand
        self._spelled: list[Header] = []
        self._chunks: list[bytes] = []
        self._scope: dict[str, Any] = {}
        self._head_bytes: int
        self._body_bytes: int
        self._message_bytes: int  # all of it, as it came
        self._body_began: float | None  # when the first look found it incomplete
        self._announced_bytes: int
        self._expects_more: bool
        self._has_head: bool
        self._skips_body: bool
        self._start_message()

    # What asyncio calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(cast(asyncio.Transport, transport))
        self._deadline.set(self._idle_s(self._limits.head_s), self._give_up)

    def data_received(self, data: bytes) -> None:
        if self._is_deaf:
            return
        unread = memoryview(data)
        was_receiving, self._begun = self._is_receiving, 0
        while unread:
            try:
                self.parser.feed_data(unread)
                break
            except httptools.HttpParserUpgrade as upgrade:
                unread = unread[upgrade.args[0] :]
                self._ignore_upgrade()
            except httptools.HttpParserError as error:
                log.debug("malformed HTTP: %s", type(error).__name__)
                self._refuse(refusal(BadRequest("Invalid HTTP message."), self._cors))
                return
        if self._begun + was_receiving == 1:
            self._message_bytes += len(data)  # of one request; a mixture goes uncounted once
        self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        self.connections.discard(self)
        self._deadline.close()
        self._is_deaf = self._is_over = True
        if self._active is not None:
            self._active.lose_client()
        self._waiting.clear()
        self.flow.resume_writing()
        self.parser = None  # type: ignore[assignment]  # it refers to us

    def shutdown(self) -> None:
        """Drain: what has begun to arrive is answered, what is idle gets a short grace."""
        if self._active is None and not self._is_receiving and not self._is_deaf:
            self._deadline.set(self._limits.drain_grace_s, self._give_up)

    def _ignore_upgrade(self) -> None:
        """TorchServe: an offer to upgrade is ignored, and the body of the request follows.

        The parser stops behind the head of such a request. Were we to go on from there, the
        body would be read as the next request; so a new parser is told how long the body is.
        """
        framing = (b"content-length", b"transfer-encoding")
        lines = [b"%b: %b\r\n" % header for header in self.headers if header[0] in framing]
        self.parser = _new_parser(self)
        self._is_replaying = True
        self.parser.feed_data(b"POST / HTTP/1.1\r\n" + b"".join(lines) + b"\r\n")
        self._is_replaying = False

    # What the parser calls

    def on_message_begin(self) -> None:
        if self._is_replaying:
            return
        if self._is_deaf:
            raise ValueError("nothing may follow a refused request")
        self._deadline.clear()
        self._is_receiving = True
        self._begun += 1
        self._start_message()

    def on_url(self, url: bytes) -> None:
        if not self._is_replaying:
            self.url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._is_replaying:
            return
        self._head_bytes += len(name) + len(value) + 4
        if self._has_head:
            return  # trailers reach no handler
        lower = name.lower()
        if lower == b"content-length":
            self._announced_bytes = int(value)
        elif lower == b"expect":
            self.expect_100_continue = value.lower() == b"100-continue"
            self._expects_more = not self.expect_100_continue
            if self.expect_100_continue:
                return  # TorchServe: it is met here, and no handler sees it
        self._spelled.append((name, value))
        self.headers.append((lower, value))

    def on_headers_complete(self) -> None:
        if self._is_replaying:
            return
        self._has_head = True
        if self._head_bytes + len(self.url) > MAX_HEAD_BYTES:
            raise ValueError("the head of the request is too large")
        if not self.headers and self.parser.get_http_version() == "0.9":
            raise ValueError("the request line has no version")
        url = self.url.partition(b"#")[0]  # TorchServe: a fragment is left out
        if not url.startswith(b"/") and b"://" in url:
            parsed = httptools.parse_url(url)
            url = (parsed.path or b"/") + (b"?" + parsed.query if parsed.query else b"")
        raw_path, _, query = url.partition(b"?")
        path = raw_path.decode("utf-8", "replace")
        self._scope = {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "http_version": self.parser.get_http_version(),
            "server": self.server,
            "client": self.client,
            "scheme": self.scheme,
            "root_path": "",
            "method": self.parser.get_method().decode("ascii"),
            "raw_path": raw_path,
            "path": unquote(path) if "%" in path else path,
            "query_string": query,
            "headers": self.headers,
            "spelled_headers": self._spelled,
        }
        if self._announced_bytes > self._limits.max_request_bytes:
            # TorchServe keeps the connection and skips the body. After `Expect` nobody can
            # know whether the body will come, and guessing wrong would read it as a request.
            self._skip_body(Refusal(TOO_LARGE, closes=self.expect_100_continue))
        elif self._expects_more:
            is_chunked = any(name == b"transfer-encoding" for name, _ in self.headers)
            self._skip_body(Refusal(UNEXPECTED, closes=is_chunked or self._announced_bytes > 0))
        elif self.expect_100_continue and self._active is None:
            self.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def on_body(self, body: bytes) -> None:
        self._body_bytes += len(body)
        if self._skips_body:
            return
        if self._body_bytes > self._limits.max_request_bytes:
            self._skip_body(Refusal(TOO_LARGE + b"connection: close\r\n", closes=True))
            return
        self._chunks.append(body)

    def on_message_complete(self) -> None:
        if self.parser.should_upgrade():
            return  # see _ignore_upgrade
        self._is_receiving = False
        if self._skips_body or self._is_deaf:
            return
        chunks = self._chunks
        body = chunks[0] if len(chunks) == 1 else b"".join(chunks)
        self._chunks = []
        self._enqueue(Exchange(self._scope, body, self))

    # Answers, in the order of the requests

    def _enqueue(self, item: Exchange | Refusal) -> None:
        if self._active is not None:
            self._waiting.append(item)
            self.flow.pause_reading()
        elif isinstance(item, Refusal):
            self._write(item)
        else:
            self._answer(item)

    def _answer(self, exchange: Exchange) -> None:
        self._active = exchange
        self._deadline.clear()
        if self._begin is None or not exchange.can_respond or not self._begin(exchange):
            self.start_task(exchange, cast(ASGIApp, self.app))

    def start_task(self, exchange: Exchange, app: ASGIApp) -> None:
        """Let an ASGI application answer, in a task that uvicorn waits for at the end."""
        task = self.loop.create_task(exchange.run(app))
        task.add_done_callback(self.tasks.discard)
        self.tasks.add(task)

    def may_keep_alive(self) -> bool:
        """Draining ends a connection with the answer to the last request that reached us."""
        return not self._state.is_draining or bool(self._waiting) or self._is_receiving

    def next(self) -> None:
        """The active exchange is over: close, go on with a pipelined request, or wait."""
        assert self._active is not None
        keep_alive = self._active.keep_alive
        self._active = None
        self._state.total_requests += 1
        if self._is_over or self.transport.is_closing():
            return
        if not keep_alive:
            self._close()
            return
        while self._waiting and not self._is_over:
            item = self._waiting.popleft()
            if not isinstance(item, Refusal):
                self._answer(item)
                return
            self._write(item)
        if not self._is_over:
            self.flow.resume_reading()
            self._watch()

    def _refuse(self, answer: Refusal) -> None:
        """The last answer of this connection; nothing that arrives after it is read."""
        if not self._is_deaf:
            self._is_deaf = True
            self._is_receiving = False
            self._enqueue(answer)

    def _skip_body(self, answer: Refusal) -> None:
        self._skips_body = True
        self._chunks = []
        if answer.closes:
            self._refuse(answer)
        else:
            self._enqueue(answer)

    def _write(self, answer: Refusal) -> None:
        self.transport.write(answer.head + b"\r\n" + answer.body)
        if answer.status:
            self._count_refusal(answer.status)
            if self.access_lines is not None:
                self.access_lines.add(self.client, "GET", REFUSED_PATH, answer.status, 0)
        if answer.closes:
            # Closing with unread bytes in the socket resets the connection, and the reset
            # overtakes the answer. So only our half closes, and the client has a moment.
            self._is_deaf = self._is_over = True
            self.flow.resume_reading()
            if self.transport.can_write_eof():
                self.transport.write_eof()
            self._deadline.set(LINGER_S, self.transport.abort)

    def _close(self) -> None:
        self._is_deaf = self._is_over = True
        self.transport.close()
        self._unsent_bytes = self.transport.get_write_buffer_size()
        if self._unsent_bytes:
            self._deadline.set(self._limits.body_s, self._give_up)

    # Deadlines

    def _watch(self) -> None:
        """Guard whatever the client does next; called whenever it has done something."""
        if self._is_deaf:
            return
        if self._is_receiving and not self.flow.read_paused:
            overhead = self._message_bytes - self._body_bytes
            if overhead > MAX_HEAD_BYTES + MAX_OVERHEAD * self._body_bytes:
                self._refuse(refusal(BadRequest("Invalid HTTP message."), self._cors))
            elif self._has_head:
                self._deadline.set(min(self._limits.body_s, self._body_left_s()), self._time_out)
            elif not self._deadline.is_set:
                self._deadline.set(self._limits.head_s, self._time_out)
        elif self._active is not None:
            self._deadline.clear()
        elif not self._deadline.is_set:
            self._deadline.set(self._idle_s(self._limits.keep_alive_s), self._give_up)

    def _body_left_s(self) -> float:
        """Else a byte a minute would hold a connection for ever."""
        now = self.loop.time()
        if self._body_began is None:
            self._body_began = now
        due = self._body_began + self._limits.body_s
        return due + self._body_bytes / self._limits.body_bytes_per_s - now

    def _idle_s(self, otherwise_s: float) -> float:
        return self._limits.drain_grace_s if self._state.is_draining else otherwise_s

    def _time_out(self) -> None:
        self._refuse(refusal(RequestTimeout("The request did not arrive in time."), self._cors))

    def _give_up(self) -> None:
        """An idle client: nothing to answer. One that has stopped reading is cut off."""
        unsent_before = self._unsent_bytes
        self._unsent_bytes = self.transport.get_write_buffer_size()
        if not self._unsent_bytes:
            self._close()
        elif unsent_before and self._unsent_bytes >= unsent_before:
            self.transport.abort()
        else:
            self._deadline.set(self._limits.body_s, self._give_up)

    def _start_message(self) -> None:
        self.url = b""
        self.expect_100_continue = False
        self._expects_more = False  # than to be told to go on
        self.headers = []
        self._spelled = []
        self._chunks = []
        self._head_bytes = 0
        self._body_bytes = 0
        self._message_bytes = 0
        self._body_began = None
        self._announced_bytes = 0
        self._unsent_bytes = 0
        self._has_head = False
        self._skips_body = False


def _new_parser(protocol: HttpProtocol) -> httptools.HttpRequestParser:
    parser = httptools.HttpRequestParser(protocol)
    # TorchServe: the client's own Connection header and HTTP version are ignored
    parser.set_dangerous_leniencies(lenient_keep_alive=True)
    return parser
