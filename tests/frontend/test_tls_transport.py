"""TLS on real sockets, with clients that block, as most do, and those that mean no good."""

import asyncio
import contextlib
import logging
import socket
import ssl
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
import uvloop
from listeners import DEADLINE_S, answering
from tls_identities import tls_identity

from torchkeep.frontend.http_protocol import Limits
from torchkeep.frontend.listener import Listener
from torchkeep.runtime.address import Address

REQUEST = b"GET / HTTP/1.1\r\n\r\n"
PATIENT = Limits(handshake_s=DEADLINE_S, head_s=DEADLINE_S, drain_grace_s=0.05)


async def hello(scope: dict[str, Any], receive: Any, send: Any) -> None:
    assert scope["scheme"] == "https"
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"hello"})


async def refusing(scope: dict[str, Any], receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 404, "headers": []})
    await send({"type": "http.response.body", "body": b"no"})


@asynccontextmanager
async def listening(app: Any, limits: Limits = PATIENT) -> AsyncIterator[Listener]:
    address = Address("https", "127.0.0.1", 0)
    listener = Listener(app, address, limits, tls=tls_identity().context)
    async with answering(listener):
        yield listener


def ask(client: Callable[[int], Any], app: Any = hello, limits: Limits = PATIENT) -> Any:
    """What a client in a thread of its own makes of a listener, which it gets the port of."""

    async def main() -> Any:
        async with listening(app, limits) as listener:
            return await asyncio.to_thread(client, listener.port)

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(main())


def plain_socket(port: int) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), timeout=DEADLINE_S)


def tls_socket(port: int, context: ssl.SSLContext | None = None) -> ssl.SSLSocket:
    return (context or tls_identity().trusting).wrap_socket(
        plain_socket(port), server_hostname="localhost", suppress_ragged_eofs=False
    )


def read_all(sock: socket.socket) -> bytes:
    received = b""
    while data := sock.recv(1 << 16):
        received += data
    return received


def hello_of_a_client() -> bytes:
    """The first bytes of a handshake."""
    outgoing = ssl.MemoryBIO()
    tls = tls_identity().trusting.wrap_bio(ssl.MemoryBIO(), outgoing, server_hostname="localhost")
    with pytest.raises(ssl.SSLWantReadError):
        tls.do_handshake()
    return outgoing.read()


@pytest.mark.parametrize(
    ("version", "name"), [(ssl.TLSVersion.TLSv1_2, "TLSv1.2"), (ssl.TLSVersion.TLSv1_3, "TLSv1.3")]
)
def test_tls_1_2_and_1_3_are_spoken(version: ssl.TLSVersion, name: str) -> None:
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.minimum_version = context.maximum_version = version

    def client(port: int) -> str | None:
        with tls_socket(port, context) as sock:
            sock.sendall(REQUEST)
            assert b"200 OK" in sock.recv(1 << 16)
            return sock.version()

    assert ask(client) == name


def old_version(context: ssl.SSLContext) -> None:
    context.set_ciphers("DEFAULT:@SECLEVEL=0")
    context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_1


def no_authenticated_encryption(context: ssl.SSLContext) -> None:
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers("ECDHE-ECDSA-AES128-SHA")


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion.TLSv1_1 is deprecated")
@pytest.mark.parametrize("weaken", [old_version, no_authenticated_encryption])
def test_weaker_tls_is_refused_and_one_line_says_so(
    weaken: Callable[[ssl.SSLContext], None], caplog: pytest.LogCaptureFixture
) -> None:
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    weaken(context)

    def client(port: int) -> None:
        with pytest.raises(ssl.SSLError):
            tls_socket(port, context)

    with caplog.at_level(logging.INFO, "torchkeep.frontend"):
        ask(client)
    assert len([one for one in caplog.messages if one.startswith("no TLS with 127.0.0.1")]) == 1


@pytest.mark.parametrize("request_", [REQUEST, b"POST / HTTP/1.1\r\ncontent-length: 5\r\n\r\nab"])
def test_plain_http_on_the_https_port_is_403(request_: bytes) -> None:
    def client(port: int) -> bytes:
        with plain_socket(port) as sock:
            sock.sendall(request_)
            return read_all(sock)

    assert ask(client) == (
        b"HTTP/1.1 403 Forbidden\r\ncontent-type: application/json\r\nPragma: no-cache\r\n"
        b"Cache-Control: no-cache; no-store, must-revalidate, private\r\n"
        b"Expires: Thu, 01 Jan 1970 00:00:00 UTC\r\ncontent-length: 71\r\nconnection: close\r\n\r\n"
        b'{\n  "status": "This TorchServe instance only accepts HTTPS requests"\n}\n'
    )


@pytest.mark.parametrize(
    "garbage", [b"\x00\x01\x02", b"\x16\x03\x01\x00\x05hello", b"\x80\x2e\x01"]
)
def test_garbage_ends_its_connection_and_no_other(
    garbage: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    def client(port: int) -> bytes:
        with plain_socket(port) as sock:
            sock.sendall(garbage + bytes(10))
            sock.shutdown(socket.SHUT_WR)
            with contextlib.suppress(ConnectionResetError):
                read_all(sock)
        with tls_socket(port) as sock:
            sock.sendall(REQUEST)
            return sock.recv(1 << 16)

    assert ask(client).endswith(b"hello")
    assert not [one for one in caplog.records if one.levelno >= logging.WARNING]


@pytest.mark.parametrize("begin", [b"", hello_of_a_client()[:50]])
def test_a_handshake_has_its_time(begin: bytes) -> None:
    def client(port: int) -> bytes:
        with plain_socket(port) as sock:
            sock.sendall(begin)
            try:
                return sock.recv(1)
            except ConnectionResetError:
                return b""

    assert ask(client, limits=Limits(handshake_s=0.1)) == b""


@pytest.mark.parametrize("begin", [b"", hello_of_a_client()[:50]])
def test_who_never_shakes_hands_does_not_hold_a_stop(begin: bytes) -> None:
    async def main() -> float:
        async with listening(hello) as listener:
            reader, writer = await asyncio.open_connection("127.0.0.1", listener.port)
            writer.write(begin)
            await asyncio.sleep(0)
            started = time.monotonic()
            listener.begin_drain()
            assert await reader.read() == b""
            writer.close()
        return time.monotonic() - started

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        assert runner.run(main()) < PATIENT.handshake_s / 2


def test_a_request_in_flight_is_answered_at_a_stop() -> None:
    entered, opened = asyncio.Event(), asyncio.Event()

    async def gate(scope: dict[str, Any], receive: Any, send: Any) -> None:
        entered.set()
        await opened.wait()
        await hello(scope, receive, send)

    def client(port: int) -> bytes:
        with tls_socket(port) as sock:
            sock.sendall(REQUEST)
            return read_all(sock)

    async def main() -> bytes:
        async with listening(gate) as listener:
            answer = asyncio.create_task(asyncio.to_thread(client, listener.port))
            await entered.wait()
            listener.begin_drain()
            opened.set()
            return await answer

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        answer = runner.run(main())
    assert b"connection: close" in answer
    assert answer.endswith(b"hello")


def test_the_end_of_a_connection_is_said_and_no_mere_cut() -> None:
    def client(port: int) -> bytes:
        with tls_socket(port) as sock:
            sock.sendall(REQUEST)
            return read_all(sock)  # an end without the goodbye raises

    assert ask(client, refusing).endswith(b"no")


def test_a_client_may_say_goodbye() -> None:
    def client(port: int) -> bytes:
        sock = tls_socket(port)
        sock.sendall(REQUEST)
        assert sock.recv(1 << 16).endswith(b"hello")
        with sock.unwrap() as plain:  # waits for the server's own
            return read_all(plain)

    assert ask(client) == b""


@pytest.mark.parametrize("length", [0, 1, (16 << 10) + 1, 20_000_000])
def test_answers_of_any_length_arrive_whole_however_slowly_they_are_read(length: int) -> None:
    async def app(scope: dict[str, Any], receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 500, "headers": []})
        await send({"type": "http.response.body", "body": bytes(length)})

    def client(port: int) -> int:
        received, pauses = 0, 5
        with tls_socket(port) as sock:
            sock.sendall(REQUEST)
            while data := sock.recv(1 << 16):
                received += len(data)
                if pauses:
                    pauses -= 1
                    time.sleep(0.02)
        return received

    head = len(
        b"HTTP/1.1 500 Internal Server Error\r\ncontent-length: \r\nconnection: close\r\n\r\n"
    )
    assert ask(client, app) == head + len(str(length)) + length
