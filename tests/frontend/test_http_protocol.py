"""Raw bytes against a real listener: what stock uvicorn could not do for TorchServe's clients."""

import asyncio
import json
import queue
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from contextvars import ContextVar
from typing import Any
from unittest.mock import ANY

import pytest
import uvloop
from listeners import answering
from tls_identities import TlsIdentity, tls_identity

from torchkeep.frontend.exchange import EXCHANGE, Exchange
from torchkeep.frontend.http_protocol import MAX_HEAD_BYTES, Limits
from torchkeep.frontend.listener import Listener
from torchkeep.runtime.address import Address
from torchkeep.runtime.log_text import Bell
from torchkeep.runtime.logs import MARK, AccessLog

LIMIT = 1000
Scope = dict[str, Any]
# Of the test that runs; None where it talks plain HTTP.
IDENTITY: ContextVar[TlsIdentity | None] = ContextVar("IDENTITY", default=None)
LOOPS = {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}


class Echo:
    """Answers with the body it got, and remembers every scope."""

    def __init__(self, status: int = 200, **start: Any) -> None:
        self.scopes: list[Scope] = []
        self._start = {"status": status, "headers": [], **start}

    async def __call__(self, scope: Scope, receive: Any, send: Any) -> None:
        self.scopes.append(scope)
        body = (await receive())["body"]
        await send({"type": "http.response.start", **self._start})
        await send({"type": "http.response.body", "body": body})


class Client:
    """One connection; `responses` reads as many complete answers as it is told."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    def send(self, data: bytes) -> None:
        self.writer.write(data)

    async def response(self, has_body: bool = True) -> tuple[bytes, dict[bytes, bytes], bytes]:
        head = await self.reader.readuntil(b"\r\n\r\n")
        status_line, *lines = head[:-4].split(b"\r\n")
        headers = dict(line.split(b": ", 1) for line in lines)
        if not has_body:
            return status_line, headers, b""
        if headers.get(b"transfer-encoding") == b"chunked":
            body = b""
            while size := int(await self.reader.readline(), 16):
                body += (await self.reader.readexactly(size + 2))[:-2]
            await self.reader.readline()
            return status_line, headers, body
        body = await self.reader.readexactly(int(headers.get(b"content-length", b"0")))
        return status_line, headers, body

    async def is_closed(self) -> bool:
        try:
            return await self.reader.read() == b""
        except ConnectionResetError:
            return True


@asynccontextmanager
async def listening(
    app: Any, limits: Limits | None = None, access_log: AccessLog | None = None
) -> AsyncIterator[Listener]:
    limits = limits or Limits(max_request_bytes=LIMIT, drain_grace_s=0.02)
    tls = IDENTITY.get()
    scheme = "https" if tls else "http"
    context = tls.context if tls else None
    listener = Listener(app, Address(scheme, "127.0.0.1", 0), limits, access_log, context)
    async with answering(listener):
        yield listener


@asynccontextmanager
async def connected(listener: Listener) -> AsyncIterator[Client]:
    tls = IDENTITY.get()
    reader, writer = await asyncio.open_connection(
        "127.0.0.1", listener.port, ssl=tls.trusting if tls else None
    )
    try:
        yield Client(reader, writer)
    finally:
        writer.transport.abort()


@pytest.fixture(params=[*LOOPS, "tls"])
def run(request: pytest.FixtureRequest) -> Callable[[Awaitable[Any]], Any]:
    return runner(request.param)


@pytest.fixture(params=LOOPS)
def run_plain(request: pytest.FixtureRequest) -> Callable[[Awaitable[Any]], Any]:
    """For clients that pause: asyncio's own lose the end of an answer over TLS then."""
    return runner(request.param)


def runner(kind: str) -> Callable[[Awaitable[Any]], Any]:
    def run_in_loop(main: Any) -> Any:
        IDENTITY.set(tls_identity() if kind == "tls" else None)
        with asyncio.Runner(loop_factory=LOOPS.get(kind, uvloop.new_event_loop)) as runner:
            return runner.run(main)

    return run_in_loop


async def exchange(
    request: bytes, app: Any, has_body: bool = True
) -> tuple[bytes, dict[bytes, bytes], bytes, bool]:
    """One request on one connection; the last item says whether the server closed it."""
    async with listening(app) as listener, connected(listener) as client:
        client.send(request)
        answer = await client.response(has_body)
        client.send(b"GET /again HTTP/1.1\r\n\r\n")
        return *answer, await _closes(client)


async def _closes(client: Client) -> bool:
    try:
        await client.response()
    except (asyncio.IncompleteReadError, ConnectionResetError):
        return True
    return False


def test_header_names_reach_the_application_as_spelled(run: Any) -> None:
    app = Echo()
    run(exchange(b"GET / HTTP/1.1\r\nX-OnE: 1\r\nx-one: 2\r\n\r\n", app))
    assert app.scopes[0]["spelled_headers"] == [(b"X-OnE", b"1"), (b"x-one", b"2")]
    assert app.scopes[0]["headers"] == [(b"x-one", b"1"), (b"x-one", b"2")]


def test_keep_alive_below_400(run: Any) -> None:
    _, headers, _, closed = run(exchange(b"GET / HTTP/1.1\r\n\r\n", Echo(399)))
    assert headers[b"connection"] == b"keep-alive"
    assert not closed


def test_close_from_400_on(run: Any) -> None:
    _, headers, _, closed = run(exchange(b"GET / HTTP/1.1\r\n\r\n", Echo(400)))
    assert headers[b"connection"] == b"close"
    assert closed


@pytest.mark.parametrize(
    "request_head", [b"GET / HTTP/1.0", b"GET / HTTP/1.1\r\nConnection: close"]
)
def test_wish_of_the_client_to_close_is_ignored(run: Any, request_head: bytes) -> None:
    status_line, headers, _, closed = run(exchange(request_head + b"\r\n\r\n", Echo()))
    assert status_line == b"HTTP/1.1 200 OK"
    assert headers[b"connection"] == b"keep-alive"
    assert not closed


@pytest.mark.parametrize(
    ("status", "reason", "line"),
    [
        (200, "", b"HTTP/1.1 200 "),
        (200, "Grüße", "HTTP/1.1 200 Grüße".encode("latin-1")),
        (418, None, b"HTTP/1.1 418 Client Error (418)"),
        (999, None, b"HTTP/1.1 999 Unknown Status (999)"),
        (1000, "x", b"HTTP/1.1 1000 x"),
    ],
)
def test_any_status_and_reason(run: Any, status: int, reason: str | None, line: bytes) -> None:
    answer = run(exchange(b"GET / HTTP/1.1\r\n\r\n", Echo(status, reason=reason)))
    assert answer[0] == line


def test_neither_server_nor_date_is_sent(run: Any) -> None:
    _, headers, _, _ = run(exchange(b"GET / HTTP/1.1\r\n\r\n", Echo()))
    assert set(headers) == {b"content-length", b"connection"}


def test_line_break_in_a_header_is_never_written(run: Any) -> None:
    app = Echo(headers=[(b"x", b"a\r\nset-cookie: b")])
    status_line, headers, _, _ = run(exchange(b"GET / HTTP/1.1\r\n\r\n", app))
    assert status_line == b"HTTP/1.1 500 Internal Server Error"
    assert b"set-cookie" not in headers


@pytest.mark.parametrize(
    "garbage",
    [
        b"hello\r\n\r\n",
        b"GET /\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET / HTTP/1.1\r\nbad header\r\n\r\n",
        b"POST / HTTP/1.1\r\ncontent-length: -1\r\n\r\n",
        b"POST / HTTP/1.1\r\ncontent-length: 1\r\ntransfer-encoding: chunked\r\n\r\n",
        b"POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\nxyz\r\n",
        b"GET / HTTP/1.1\r\nx: " + b"a" * MAX_HEAD_BYTES + b"\r\n\r\n",
        b"GET / HTTP/1.1\r\nx: " + b"a" * (2 * MAX_HEAD_BYTES),
        b"POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n0\r\nx: " + b"a" * 99999,
    ],
)
def test_malformed_http_gets_json(run: Any, garbage: bytes) -> None:
    status_line, headers, body, closed = run(exchange(garbage, Echo()))
    assert status_line == b"HTTP/1.1 400 Bad Request"
    assert headers[b"connection"] == b"close"
    assert headers[b"content-type"] == b"application/json"
    assert b"x-request-id" in headers
    assert json.loads(body) == {
        "code": 400,
        "type": "BadRequestException",
        "message": "Invalid HTTP message.",
    }
    assert closed


def test_body_of_exactly_the_limit_is_accepted(run: Any) -> None:
    request = b"POST / HTTP/1.1\r\ncontent-length: %d\r\n\r\n" % LIMIT + b"a" * LIMIT
    assert run(exchange(request, Echo()))[2] == b"a" * LIMIT


def test_chunked_body_of_exactly_the_limit_is_accepted(run: Any) -> None:
    chunks = b"".join(b"1\r\n%c\r\n" % (65 + n % 26) for n in range(LIMIT)) + b"0\r\n\r\n"
    request = b"POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n" + chunks
    assert len(run(exchange(request, Echo()))[2]) == LIMIT


def test_body_above_the_limit_gets_413_and_keeps_the_connection(run: Any) -> None:
    app = Echo()
    size = LIMIT + 1
    request = b"POST / HTTP/1.1\r\ncontent-length: %d\r\n\r\n" % size + b"a" * size
    status_line, headers, body, closed = run(exchange(request, app))
    assert status_line == b"HTTP/1.1 413 Request Entity Too Large"
    assert headers == {b"content-length": b"0"}
    assert body == b""
    assert not closed
    assert [scope["path"] for scope in app.scopes] == ["/again"]


def test_chunked_body_above_the_limit_gets_413_and_closes(run: Any) -> None:
    app = Echo()
    chunk = b"200\r\n" + b"a" * 512 + b"\r\n"
    request = b"POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n" + 2 * chunk
    status_line, headers, _, closed = run(exchange(request, app))
    assert status_line == b"HTTP/1.1 413 Request Entity Too Large"
    assert headers == {b"content-length": b"0", b"connection": b"close"}
    assert closed
    assert not app.scopes


def test_413_comes_before_the_body_does(run: Any) -> None:
    async def main() -> None:
        async with listening(Echo()) as listener, connected(listener) as client:
            client.send(b"POST / HTTP/1.1\r\ncontent-length: 99999999\r\n\r\nabc")
            assert (await client.response())[0].startswith(b"HTTP/1.1 413")

    run(main())


def test_expect_continue_is_answered_before_the_body(run: Any) -> None:
    async def main() -> None:
        app = Echo()
        async with listening(app) as listener, connected(listener) as client:
            client.send(b"PUT / HTTP/1.1\r\nExpect: 100-Continue\r\ncontent-length: 3\r\n\r\n")
            assert (await client.response())[0] == b"HTTP/1.1 100 Continue"
            client.send(b"abc")
            assert (await client.response())[2] == b"abc"
        assert app.scopes[0]["spelled_headers"] == [(b"content-length", b"3")]

    run(main())


@pytest.mark.parametrize("body", [b"", b"abc"])
def test_other_expectations_get_417(run: Any, body: bytes) -> None:
    async def main() -> None:
        app = Echo()
        async with listening(app) as listener, connected(listener) as client:
            head = b"PUT / HTTP/1.1\r\nExpect: a miracle\r\ncontent-length: %d\r\n\r\n"
            client.send(head % len(body))
            status, headers, _ = await client.response()
            assert status == b"HTTP/1.1 417 Expectation Failed"
            assert headers == {b"content-length": b"0"}
            client.send(b"PUT / HTTP/1.1\r\n\r\n")
            # Whether a body will come after all, nobody can know.
            assert await _closes(client) == bool(body)
        assert len(app.scopes) == (not body)

    run(main())


def test_answers_to_malformed_http_have_cors_headers(run: Any) -> None:
    async def main() -> None:
        app = Echo()
        app.cors_headers = [(b"access-control-allow-origin", b"*")]  # type: ignore[attr-defined]
        async with listening(app) as listener, connected(listener) as client:
            client.send(b"what is this\r\n\r\n")
            _, headers, _ = await client.response()
            assert headers[b"access-control-allow-origin"] == b"*"

    run(main())


def test_expect_continue_with_too_large_a_length_gets_413_at_once(run: Any) -> None:
    async def main() -> None:
        async with listening(Echo()) as listener, connected(listener) as client:
            client.send(b"PUT / HTTP/1.1\r\nExpect: 100-continue\r\ncontent-length: 9999\r\n\r\n")
            assert (await client.response())[0].startswith(b"HTTP/1.1 413")

    run(main())


def test_head_has_the_length_but_not_the_body(run: Any) -> None:
    request = b"HEAD / HTTP/1.1\r\ncontent-length: 3\r\n\r\nabc"
    _, headers, _, closed = run(exchange(request, Echo(), has_body=False))
    assert headers[b"content-length"] == b"3"
    assert not closed


def test_204_has_neither_length_nor_body(run: Any) -> None:
    request = b"POST / HTTP/1.1\r\ncontent-length: 3\r\n\r\nabc"
    _, headers, _, closed = run(exchange(request, Echo(204)))
    assert b"content-length" not in headers
    assert not closed


@pytest.mark.parametrize(("status", "length"), [(205, b"0"), (304, b"3")])
def test_205_says_it_has_no_body_and_304_how_long_it_would_be(
    run: Any, status: int, length: bytes
) -> None:
    request = b"POST / HTTP/1.1\r\ncontent-length: 3\r\n\r\nabc"
    _, headers, _, closed = run(exchange(request, Echo(status), has_body=False))
    assert headers[b"content-length"] == length
    assert not closed


def test_pipelined_requests_are_answered_in_order(run: Any) -> None:
    async def main() -> None:
        async with listening(Echo()) as listener, connected(listener) as client:
            for n in range(20):
                client.send(b"POST / HTTP/1.1\r\ncontent-length: 2\r\n\r\n%02d" % n)
            bodies = [(await client.response())[2] for _ in range(20)]
            assert bodies == [b"%02d" % n for n in range(20)]

    run(main())


def test_garbage_behind_a_request_waits_for_its_answer(run: Any) -> None:
    async def main() -> None:
        async with listening(Echo()) as listener, connected(listener) as client:
            client.send(b"POST / HTTP/1.1\r\ncontent-length: 1\r\n\r\n1garbage\r\n\r\n")
            assert (await client.response())[2] == b"1"
            assert (await client.response())[0] == b"HTTP/1.1 400 Bad Request"
            assert await client.is_closed()

    run(main())


UPGRADE = b"POST / HTTP/1.1\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n"


@pytest.mark.parametrize(
    ("rest", "seen"),
    [
        (b"content-length: 3\r\n\r\nabc", b"abc"),
        (b"transfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n", b"abc"),
        (b"content-length: 4\r\n\r\nGET ", b"GET "),
        (b"\r\n", b""),
    ],
)
def test_offer_to_upgrade_is_ignored(run: Any, rest: bytes, seen: bytes) -> None:
    app = Echo()
    _, _, body, closed = run(exchange(UPGRADE + rest, app))
    assert body == seen
    assert not closed
    assert [scope["path"] for scope in app.scopes] == ["/", "/again"]


def test_connect_is_a_request_like_any_other(run: Any) -> None:
    app = Echo()
    run(exchange(b"CONNECT host:443 HTTP/1.1\r\n\r\n", app))
    assert app.scopes[0]["method"] == "CONNECT"


def test_request_may_arrive_byte_by_byte(run: Any) -> None:
    async def main() -> None:
        async with listening(Echo()) as listener, connected(listener) as client:
            for byte in b"POST /a%2Fb?q=1 HTTP/1.1\r\nX: y\r\ncontent-length: 2\r\n\r\nab":
                client.send(bytes([byte]))
                await client.writer.drain()
                await asyncio.sleep(0)
            assert (await client.response())[2] == b"ab"

    run(main())


def test_path_is_decoded_and_the_query_kept_apart(run: Any) -> None:
    app = Echo()
    run(exchange(b"GET //a%2Fb/%ZZ?x=%20 HTTP/1.1\r\n\r\n", app))
    scope = app.scopes[0]
    assert (scope["path"], scope["query_string"]) == ("//a/b/%ZZ", b"x=%20")


def test_a_fragment_is_left_out(run: Any) -> None:
    app = Echo()
    run(exchange(b"GET /a%23b#c?d HTTP/1.1\r\n\r\n", app))
    scope = app.scopes[0]
    assert (scope["path"], scope["query_string"]) == ("/a#b", b"")


def test_absolute_target_is_reduced_to_its_path(run: Any) -> None:
    app = Echo()
    run(exchange(b"GET http://host:1/p?q=1 HTTP/1.1\r\n\r\n", app))
    scope = app.scopes[0]
    assert (scope["path"], scope["query_string"]) == ("/p", b"q=1")


def test_response_in_pieces_is_chunked(run: Any) -> None:
    async def app(scope: Scope, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        for piece in (b"a", b"", b"bc"):
            await send({"type": "http.response.body", "body": piece, "more_body": True})
        await send({"type": "http.response.body", "body": b"d"})

    assert run(exchange(b"GET / HTTP/1.1\r\n\r\n", app))[2] == b"abcd"


def test_large_response_arrives_whole(run: Any) -> None:
    body = bytes(5_000_000)

    async def app(scope: Scope, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": memoryview(body)})

    assert run(exchange(b"GET / HTTP/1.1\r\n\r\n", app))[2] == body


def test_client_that_leaves_is_noticed(run: Any) -> None:
    left = asyncio.Event()
    started = asyncio.Event()

    async def app(scope: Scope, receive: Any, send: Any) -> None:
        scope["extensions"][EXCHANGE].on_disconnect = left.set
        await receive()
        started.set()
        assert (await receive())["type"] == "http.disconnect"
        await send({"type": "http.response.start", "status": 200, "headers": []})

    async def main() -> None:
        async with listening(app) as listener:
            async with connected(listener) as client:
                client.send(b"GET / HTTP/1.1\r\n\r\n")
                await started.wait()
            await left.wait()

    run(main())


@pytest.mark.parametrize("start", [b"", b"\r\n"])
def test_client_that_says_nothing_is_cut_off(run: Any, start: bytes) -> None:
    async def main() -> None:
        limits = Limits(head_s=0.1)
        async with listening(Echo(), limits) as listener, connected(listener) as client:
            client.send(start)
            assert await client.is_closed()

    run(main())


@pytest.mark.parametrize(
    "start", [b"G", b"GET / HTTP/1.1\r\nX:", b"POST / HTTP/1.1\r\ncontent-length: 3\r\n\r\na"]
)
def test_request_that_does_not_arrive_in_time_gets_408(run: Any, start: bytes) -> None:
    async def main() -> None:
        limits = Limits(head_s=0.1, body_s=0.1)
        async with listening(Echo(), limits) as listener, connected(listener) as client:
            client.send(start)
            assert (await client.response())[0] == b"HTTP/1.1 408 Request Timeout"
            assert await client.is_closed()

    run(main())


def test_head_that_trickles_in_does_not_extend_its_deadline(run: Any) -> None:
    async def main() -> None:
        limits = Limits(head_s=0.2)
        async with listening(Echo(), limits) as listener, connected(listener) as client:
            client.send(b"GET / HTTP/1.1\r\n")
            answer = asyncio.ensure_future(client.response())
            while not answer.done():
                client.send(b"X: y\r\n")
                await asyncio.wait([answer], timeout=0.05)
            assert answer.result()[0] == b"HTTP/1.1 408 Request Timeout"

    run(main())


@pytest.mark.parametrize(
    "framing", [b"Content-Length: 900\r\n\r\n", b"Transfer-Encoding: chunked\r\n\r\n"]
)
def test_body_that_trickles_in_does_not_extend_its_deadline(run: Any, framing: bytes) -> None:
    async def main() -> None:
        limits = Limits(body_s=0.3, body_bytes_per_s=1000)
        async with listening(Echo(), limits) as listener, connected(listener) as client:
            client.send(b"POST / HTTP/1.1\r\n" + framing)
            answer = asyncio.ensure_future(client.response())
            while not answer.done():
                client.send(b"1\r\nx\r\n" if b"chunked" in framing else b"x")
                await asyncio.wait([answer], timeout=0.05)
            assert answer.result()[0] == b"HTTP/1.1 408 Request Timeout"

    run(main())


def test_body_that_comes_fast_enough_may_take_longer_than_a_silence(run: Any) -> None:
    async def main() -> None:
        limits = Limits(body_s=2.0, body_bytes_per_s=10)
        async with listening(Echo(), limits) as listener, connected(listener) as client:
            client.send(b"POST / HTTP/1.1\r\nContent-Length: 260\r\n\r\n")
            for _ in range(26):
                client.send(b"x" * 10)
                await asyncio.sleep(0.1)
            assert await client.response() == (b"HTTP/1.1 200 OK", ANY, b"x" * 260)

    run(main())


def test_idle_connection_is_closed_after_a_while(run: Any) -> None:
    async def main() -> None:
        limits = Limits(keep_alive_s=0.1)
        async with listening(Echo(), limits) as listener, connected(listener) as client:
            client.send(b"GET / HTTP/1.1\r\n\r\n")
            await client.response()
            assert await client.is_closed()

    run(main())


@pytest.mark.parametrize("status", [200, 500])
def test_client_that_does_not_read_is_cut_off(run: Any, status: int) -> None:
    async def app(scope: Scope, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": status, "headers": []})
        await send({"type": "http.response.body", "body": bytes(50_000_000)})

    async def main() -> None:
        limits = Limits(keep_alive_s=0.1, body_s=0.1)
        async with listening(app, limits) as listener, connected(listener) as client:
            client.send(b"GET / HTTP/1.1\r\n\r\n")
            await client.reader.readuntil(b"\r\n\r\n")
            while listener.server_state.connections:  # noqa: ASYNC110 - uvicorn has no event
                await asyncio.sleep(0.01)

    run(main())


def test_client_that_reads_slowly_gets_everything(run_plain: Any) -> None:
    size = 20_000_000

    async def app(scope: Scope, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 500, "headers": []})
        await send({"type": "http.response.body", "body": bytes(size)})

    async def main() -> None:
        limits = Limits(keep_alive_s=0.1, body_s=0.2)
        async with listening(app, limits) as listener, connected(listener) as client:
            client.send(b"GET / HTTP/1.1\r\n\r\n")
            await client.reader.readuntil(b"\r\n\r\n")
            for _ in range(10):
                await client.reader.readexactly(size // 10)
                await asyncio.sleep(0.05)

    run_plain(main())


def test_an_answer_that_was_cut_short_ends_in_a_reset(run: Any) -> None:
    async def app(scope: Scope, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"piece", "more_body": True})
        scope["extensions"][EXCHANGE].reset()
        scope["extensions"][EXCHANGE].reset()
        await send({"type": "http.response.body", "body": b"never sent"})

    async def main() -> None:
        async with listening(app) as listener, connected(listener) as client:
            client.send(b"GET / HTTP/1.1\r\n\r\n" * 2)
            await client.reader.readuntil(b"\r\n\r\n")
            assert await client.reader.readexactly(10) == b"5\r\npiece\r\n"
            with pytest.raises(ConnectionResetError):
                await client.reader.read()

    run(main())


@pytest.mark.parametrize("more_body", [True, False])
def test_client_that_stops_reading_a_stream_is_cut_off(run: Any, more_body: bool) -> None:
    is_over = asyncio.Event()

    async def app(scope: Scope, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": bytes(50_000_000), "more_body": True})
        await send({"type": "http.response.body", "body": b"rest", "more_body": more_body})
        is_over.set()

    async def main() -> None:
        async with listening(app, Limits(body_s=0.1)) as listener, connected(listener) as client:
            client.send(b"GET / HTTP/1.1\r\n\r\n")
            await is_over.wait()
            while listener.server_state.connections:  # noqa: ASYNC110 - uvicorn has no event
                await asyncio.sleep(0.01)

    run(main())


def test_client_that_reads_a_stream_slowly_gets_everything(run_plain: Any) -> None:
    size = 2_000_000

    async def app(scope: Scope, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        for _ in range(10):
            await send({"type": "http.response.body", "body": bytes(size), "more_body": True})
        await send({"type": "http.response.body", "body": b""})

    async def main() -> None:
        async with listening(app, Limits(body_s=0.2)) as listener, connected(listener) as client:
            client.send(b"GET / HTTP/1.1\r\n\r\n")
            await client.reader.readuntil(b"\r\n\r\n")
            for _ in range(10):
                await client.reader.readexactly(len(b"%x\r\n" % size) + size + 2)
                await asyncio.sleep(0.1)
            assert await client.reader.readexactly(5) == b"0\r\n\r\n"

    run_plain(main())


def test_slow_handler_is_not_a_slow_client(run: Any) -> None:
    async def app(scope: Scope, receive: Any, send: Any) -> None:
        await asyncio.sleep(0.4)
        await Echo()(scope, receive, send)

    async def main() -> None:
        limits = Limits(head_s=0.1, body_s=0.1, keep_alive_s=0.1)
        async with listening(app, limits) as listener, connected(listener) as client:
            client.send(b"GET / HTTP/1.1\r\n\r\n")
            assert (await client.response())[0] == b"HTTP/1.1 200 OK"

    run(main())


def test_access_line_has_no_query(run: Any) -> None:
    lines: queue.SimpleQueue[Any] = queue.SimpleQueue()
    access_log = AccessLog(Bell(lines.put))

    async def main() -> None:
        serving = listening(Echo(404), access_log=access_log)
        async with serving as listener, connected(listener) as client:
            client.send(b"GET /p%20q?token=secret HTTP/1.1\r\n\r\n")
            await client.response()

    run(main())
    words = access_log.take().partition(MARK)[2].split(" ")
    assert words[0].startswith("/127.0.0.1:")
    assert words[1:5] == ['"GET', "/p%20q", 'HTTP/1.1"', "404"]
    assert words[5].strip().isdigit()


def test_access_line_tells_the_clients_version_of_http(run: Any) -> None:
    lines: queue.SimpleQueue[Any] = queue.SimpleQueue()
    access_log = AccessLog(Bell(lines.put))

    async def main() -> None:
        serving = listening(Echo(), access_log=access_log)
        async with serving as listener, connected(listener) as client:
            client.send(b"GET / HTTP/1.0\r\n\r\n")
            await client.response()

    run(main())
    assert ' "GET / HTTP/1.0" 200 ' in access_log.take()


@pytest.mark.parametrize(
    ("request_bytes", "counted"),
    [
        (b"what is this\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\ncontent-length: 1001\r\n\r\n", None),
        (b"GET / HTTP/1.1\r\nexpect: nothing\r\n\r\n", None),
    ],
    ids=["malformed", "too large", "expectation"],
)
def test_malformed_http_has_an_access_line_and_is_counted_and_413_and_417_are_not(
    run: Any, request_bytes: bytes, counted: int | None
) -> None:
    lines: queue.SimpleQueue[Any] = queue.SimpleQueue()
    access_log = AccessLog(Bell(lines.put))
    refused: list[int] = []
    app = Echo()
    app.refused = refused.append  # type: ignore[attr-defined]

    async def main() -> None:
        serving = listening(app, access_log=access_log)
        async with serving as listener, connected(listener) as client:
            client.send(request_bytes)
            await client.response()

    run(main())
    assert refused == ([counted] if counted else [])
    assert ('"GET /bad-request HTTP/1.1" 400 0\n' in access_log.take()) == (counted == 400)


class Beginner(Echo):
    """Takes requests to /now without a task, and those to /later when it is told to."""

    def __init__(self) -> None:
        super().__init__()
        self.exchanges: list[Exchange] = []
        self.has_later = asyncio.Event()

    def begin(self, exchange: Exchange) -> bool:
        if exchange.scope["path"] not in ("/now", "/later"):
            return False
        self.exchanges.append(exchange)
        if exchange.scope["path"] == "/now":
            exchange.respond(200, "Now", [], exchange.request_body)
        else:
            self.has_later.set()
        return True


def test_an_answer_without_a_task_is_an_answer_like_others(run: Any) -> None:
    async def main() -> None:
        app = Beginner()
        async with listening(app) as listener, connected(listener) as client:
            for path in (b"now", b"other", b"now"):
                client.send(b"POST /%b HTTP/1.1\r\ncontent-length: 3\r\n\r\nabc" % path)
                status, headers, body = await client.response()
                assert status == b"HTTP/1.1 200 " + (b"Now" if path == b"now" else b"OK")
                assert headers == {b"content-length": b"3", b"connection": b"keep-alive"}
                assert body == b"abc"
            client.send(b"HEAD /now HTTP/1.1\r\n\r\n")
            _, headers, _ = await client.response(has_body=False)
            assert headers[b"content-length"] == b"0"
        assert len(app.scopes) == 1

    run(main())


def test_pipelined_requests_wait_for_an_answer_without_a_task(run: Any) -> None:
    async def main() -> None:
        app = Beginner()
        async with listening(app) as listener, connected(listener) as client:
            paths = (b"later", b"now", b"other")
            client.send(b"".join(b"GET /%b HTTP/1.1\r\n\r\n" % path for path in paths))
            await app.has_later.wait()
            assert len(app.exchanges) == 1
            app.exchanges[0].respond(201, None, [], b"x")
            lines = [(await client.response())[0] for _ in paths]
            assert lines == [b"HTTP/1.1 201 Created", b"HTTP/1.1 200 Now", b"HTTP/1.1 200 OK"]

    run(main())


def test_an_answer_without_a_task_for_a_client_that_left(run: Any) -> None:
    async def main() -> None:
        app = Beginner()
        left = asyncio.Event()
        async with listening(app) as listener:
            async with connected(listener) as client:
                client.send(b"GET /later HTTP/1.1\r\n\r\n")
                await app.has_later.wait()
                app.exchanges[0].on_disconnect = left.set
            await left.wait()
            app.exchanges[0].respond(200, None, [], b"nobody reads this")

    run(main())


def test_who_does_not_read_is_answered_in_a_task_that_waits(run: Any) -> None:
    """Or else its answers would pile up here."""
    large = bytes(1 << 20)

    class Large(Beginner):
        def begin(self, exchange: Exchange) -> bool:
            self.exchanges.append(exchange)
            exchange.respond(200, None, [], large)
            return True

    async def main() -> None:
        app = Large()
        async with listening(app) as listener, connected(listener) as client:
            client.writer.transport.pause_reading()  # type: ignore[attr-defined]
            client.send(b"GET / HTTP/1.1\r\n\r\n" * 40)
            while not app.scopes:  # noqa: ASYNC110 - a plain list
                await asyncio.sleep(0.01)
            assert len(app.exchanges) < 39
            client.writer.transport.resume_reading()  # type: ignore[attr-defined]
            for _ in range(40):
                await client.response()

    run(main())


def test_failing_application_answers_500(run: Any, caplog: pytest.LogCaptureFixture) -> None:
    async def app(scope: Scope, receive: Any, send: Any) -> None:
        raise RuntimeError("on purpose")

    answer = run(exchange(b"GET / HTTP/1.1\r\n\r\n", app))
    assert answer[0] == b"HTTP/1.1 500 Internal Server Error"
    assert answer[3]
