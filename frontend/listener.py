"""One address: uvicorn's server, without its signal handlers and with a patient end."""

import asyncio
import contextlib
import os
import select
import socket
import ssl
from collections.abc import Generator
from typing import Any, cast

import uvicorn
from starlette.types import ASGIApp

from torchkeep.frontend.http_protocol import HttpProtocol, Limits, ListenerState
from torchkeep.frontend.tls_transport import TlsConnection
from torchkeep.runtime.address import Address
from torchkeep.runtime.logs import AccessLog

BACKLOG = 2048
DRAIN_LIMIT_S = 55  # `torchserve --stop` waits 60 s before it kills
ACCEPT_LIMIT_S = 1.0  # for emptying the backlog while clients keep coming
SETTLE_TURNS = 10  # of the event loop: an accepted connection needs a few to become ours


class Listener(uvicorn.Server):
    """Serves one application on one address until `begin_drain()`.

    uvicorn would turn SIGTERM into its own exit and raise it again at the end; here signals
    belong to the roof, which drains all listeners in parallel and then cleans up.
    """

    def __init__(
        self,
        app: ASGIApp,
        address: Address,
        limits: Limits,
        access_log: AccessLog | None = None,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        super().__init__(
            uvicorn.Config(
                app,
                host=address.host,
                port=address.port,
                uds=address.path or None,
                loop="none",
                lifespan="off",
                ws="none",
                http=cast(type[asyncio.Protocol], self._protocol),
                interface="asgi3",
                log_config=None,
                access_log=False,
                proxy_headers=False,
                server_header=False,
                date_header=False,
                backlog=BACKLOG,
                timeout_graceful_shutdown=DRAIN_LIMIT_S,
            )
        )
        self.address = address
        self._tls = tls
        self._state = ListenerState(limits, access_log)
        self.server_state = self._state
        self._is_started = asyncio.Event()
        self._is_ending = asyncio.Event()
        self._inode = 0  # of the unix socket

    @property
    def port(self) -> int:
        """The port bound to, once started; 0 for a unix socket."""
        name = self._sockets()[0].getsockname()
        return cast(int, name[1]) if isinstance(name, tuple) else 0

    async def wait_started(self) -> None:
        """Until connections are accepted."""
        await self._is_started.wait()

    def begin_drain(self) -> None:
        """Answer what has been accepted, take nothing more, then let `serve()` return."""
        self.should_exit = True
        self._is_ending.set()

    def _protocol(self, **options: Any) -> asyncio.Protocol:
        """What uvicorn makes for each connection."""
        if self._tls is None:
            return HttpProtocol(**options)
        return TlsConnection(self._tls, self._state, lambda: HttpProtocol(**options))

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        yield

    async def main_loop(self) -> None:
        # uvicorn's would wake up ten times a second, for headers that we do not send.
        await self._is_ending.wait()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.address.is_unix:
            # TorchServe: as the umask has it. uvicorn lets every user of the machine in.
            os.umask(mask := os.umask(0o077))
            os.chmod(self.address.path, 0o777 & ~mask)
            self._inode = os.stat(self.address.path).st_ino
        self._is_started.set()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        # From here on a new connection has only its grace to say something.
        self._state.is_draining = True
        await self._empty_backlog()
        for server in self.servers:
            server.close()
        self._remove_socket()
        for _ in range(SETTLE_TURNS):
            await asyncio.sleep(0)
        await super().shutdown(sockets)

    def _remove_socket(self) -> None:
        """TorchServe: a unix socket goes with its server, unless another took the place."""
        with contextlib.suppress(OSError):
            if self._inode and os.stat(self.address.path).st_ino == self._inode:
                os.unlink(self.address.path)

    async def _empty_backlog(self) -> None:
        """Closing a socket resets whoever still waits to be accepted, so accept them first.

        asyncio needs some turns to make an accepted socket a connection, and fails if its
        server is closed meanwhile; hence the quiet turns. Between the last look and the
        closing there is none.
        """
        quiet_turns = 0
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(ACCEPT_LIMIT_S):
                while quiet_turns < SETTLE_TURNS:
                    await asyncio.sleep(0)
                    quiet_turns = 0 if self._has_waiting_clients() else quiet_turns + 1

    def _has_waiting_clients(self) -> bool:
        poll = select.poll()
        for listening in self._sockets():
            poll.register(listening.fileno(), select.POLLIN)
        return bool(poll.poll(0))

    def _sockets(self) -> list[socket.socket]:
        return [s for server in self.servers for s in server.sockets]
