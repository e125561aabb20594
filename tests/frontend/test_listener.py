"""Where a listener binds, and that draining loses no accepted request."""

import asyncio
import os
import signal
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import uvloop
from listeners import DEADLINE_S, answering

from torchkeep.frontend.http_protocol import Limits
from torchkeep.frontend.listener import Listener
from torchkeep.runtime.address import Address

LIMITS = Limits(drain_grace_s=0.2)
REQUEST = b"GET / HTTP/1.1\r\n\r\n"


async def hello(scope: dict[str, Any], receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"hello"})


class Gate:
    """An application that answers when it is told to."""

    def __init__(self) -> None:
        self.entered = asyncio.Event()
        self.opened = asyncio.Event()

    async def __call__(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        self.entered.set()
        await self.opened.wait()
        await hello(scope, receive, send)


@asynccontextmanager
async def listening(app: Any, address: Address) -> AsyncIterator[Listener]:
    listener = Listener(app, address, LIMITS)
    async with answering(listener):
        yield listener


TCP = Address("http", "127.0.0.1", 0)


@pytest.fixture(params=[asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def run(request: pytest.FixtureRequest) -> Any:
    def run_in_loop(main: Any) -> Any:
        with asyncio.Runner(loop_factory=request.param) as runner:
            return runner.run(main)

    return run_in_loop


def test_port_is_known_once_started(run: Any) -> None:
    async def main() -> None:
        async with listening(hello, TCP) as listener:
            assert listener.port > 0
            reader, writer = await asyncio.open_connection("127.0.0.1", listener.port)
            writer.write(REQUEST)
            assert (await reader.readline()) == b"HTTP/1.1 200 OK\r\n"
            writer.close()

    run(main())


def test_unix_socket(run: Any, tmp_path: Path) -> None:
    async def main() -> None:
        async with listening(hello, Address("unix", path=str(tmp_path / "s"))) as listener:
            assert listener.port == 0
            reader, writer = await asyncio.open_unix_connection(str(tmp_path / "s"))
            writer.write(REQUEST)
            assert (await reader.readline()) == b"HTTP/1.1 200 OK\r\n"
            writer.close()

    run(main())


def test_a_unix_socket_is_for_whom_the_umask_lets_in(run: Any, tmp_path: Path) -> None:
    async def main() -> None:
        before = os.umask(0o027)
        try:
            async with listening(hello, Address("unix", path=str(tmp_path / "s"))):
                assert (tmp_path / "s").stat().st_mode & 0o777 == 0o750
                assert os.umask(0o027) == 0o027
        finally:
            os.umask(before)

    run(main())


def test_a_unix_socket_goes_with_its_server_but_not_with_the_one_before(
    run: Any, tmp_path: Path
) -> None:
    address = Address("unix", path=str(tmp_path / "s"))

    async def main() -> None:
        async with listening(hello, address):
            pass
        assert not (tmp_path / "s").exists()
        async with listening(hello, address) as first, listening(hello, address):
            first.begin_drain()  # as at a quick restart
            while first.servers[0].is_serving():  # noqa: ASYNC110 - nobody tells
                await asyncio.sleep(0.01)
            assert (tmp_path / "s").exists()

    run(main())


def test_signals_are_left_alone(run: Any) -> None:
    before = signal.getsignal(signal.SIGTERM)

    async def main() -> None:
        async with listening(hello, TCP):
            assert signal.getsignal(signal.SIGTERM) is before

    run(main())


def test_drain_answers_a_request_in_flight(run: Any) -> None:
    async def main() -> None:
        gate = Gate()
        async with listening(gate, TCP) as listener:
            reader, writer = await asyncio.open_connection("127.0.0.1", listener.port)
            writer.write(REQUEST)
            await gate.entered.wait()
            listener.begin_drain()
            await _until_refused(listener.config.port or _port_of(writer))
            gate.opened.set()
            answer = await reader.read()
            assert b"connection: close" in answer
            assert answer.endswith(b"hello")
            writer.close()

    run(main())


def test_drain_answers_a_request_that_has_begun_to_arrive(run: Any) -> None:
    async def main() -> None:
        async with listening(hello, TCP) as listener:
            reader, writer = await asyncio.open_connection("127.0.0.1", listener.port)
            writer.write(REQUEST[:5])
            await asyncio.sleep(0.05)
            listener.begin_drain()
            await _until_refused(_port_of(writer))
            writer.write(REQUEST[5:])
            assert (await reader.read()).endswith(b"hello")
            writer.close()

    run(main())


def test_drain_answers_who_still_waits_to_be_accepted(run: Any) -> None:
    async def main() -> None:
        async with listening(hello, TCP) as listener:
            clients = [socket.create_connection(("127.0.0.1", listener.port)) for _ in range(50)]
            for client in clients:
                client.sendall(REQUEST)
            # No turn of the loop so far: all of them are in the backlog.
            listener.begin_drain()
            await listener.shutdown()
            for client in clients:
                with client:
                    client.settimeout(DEADLINE_S)
                    answer = await asyncio.to_thread(_read_all, client)
                    assert answer.endswith(b"hello")

    run(main())


def test_drain_answers_every_pipelined_request(run: Any) -> None:
    async def main() -> None:
        gate = Gate()
        async with listening(gate, TCP) as listener:
            reader, writer = await asyncio.open_connection("127.0.0.1", listener.port)
            writer.write(3 * REQUEST)
            await gate.entered.wait()
            listener.begin_drain()
            await _until_refused(_port_of(writer))
            gate.opened.set()
            answer = await reader.read()
            assert answer.count(b"hello") == 3
            assert answer.count(b"connection: close") == 1
            writer.close()

    run(main())


def test_drain_closes_idle_connections_after_their_grace(run: Any) -> None:
    async def main() -> None:
        async with listening(hello, TCP) as listener:
            silent = await asyncio.open_connection("127.0.0.1", listener.port)
            idle = await asyncio.open_connection("127.0.0.1", listener.port)
            idle[1].write(REQUEST)
            await idle[0].readuntil(b"hello")
            listener.begin_drain()
            for reader, writer in (silent, idle):
                assert await reader.read() == b""
                writer.close()

    run(main())


def test_drain_under_load_loses_no_accepted_request(run: Any) -> None:
    async def client(port: int) -> None:
        """Keeps asking on one connection until the server says it will close it."""
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        try:
            while True:
                writer.write(REQUEST)
                answer = await reader.readuntil(b"hello")
                if b"connection: close" in answer:
                    return
        finally:
            writer.close()

    async def main() -> None:
        async with listening(hello, TCP) as listener, asyncio.TaskGroup() as clients:
            for _ in range(20):
                clients.create_task(client(listener.port))
            await asyncio.sleep(0.2)
            listener.begin_drain()

    run(main())


def _port_of(writer: asyncio.StreamWriter) -> int:
    port: int = writer.get_extra_info("peername")[1]
    return port


async def _until_refused(port: int) -> None:
    """Until the listening socket is closed."""
    while True:
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", port)
        except ConnectionError:
            return
        writer.transport.abort()
        await asyncio.sleep(0.01)


def _read_all(client: socket.socket) -> bytes:
    answer = b""
    while data := client.recv(4096):
        answer += data
    return answer
