"""One sealed connection to a worker: a message out, its reply in."""

import asyncio
import secrets
import socket
from collections.abc import Callable
from typing import cast

from torchkeep.runtime.errors import ServingError, WireError
from torchkeep.runtime.messages import Message
from torchkeep.runtime.wire import SECRET_BYTES, Wire


class WorkerDied(ServingError):
    """The worker closed its connection, or sent what cannot be trusted. It is over."""


class WorkerConnection(asyncio.BufferedProtocol):
    """Sends one message at a time and waits for the reply that ends it."""

    def __init__(self, worker_id: str, max_body_bytes: int, on_lost: Callable[[], None]) -> None:
        self._worker_id = worker_id
        self._max_body_bytes = max_body_bytes
        self._on_lost = on_lost
        self._reply: asyncio.Future[Message] | None = None
        self._transport: asyncio.Transport | None = None

    async def open(self) -> socket.socket:
        """Connect, with the secret already on its way; the returned end is the worker's."""
        ours, theirs = socket.socketpair()
        secret = bytearray(secrets.token_bytes(SECRET_BYTES))
        ours.sendall(secret)
        self._wire = Wire("frontend", secret, self._worker_id, self._max_body_bytes)
        secret[:] = bytes(SECRET_BYTES)
        try:
            loop = asyncio.get_running_loop()
            await loop.create_unix_connection(lambda: self, sock=ours)
        except BaseException:
            ours.close()
            theirs.close()
            raise
        return theirs

    async def exchange(self, message: Message, limit_s: float) -> Message:
        """The reply to `message`.

        Raises WorkerDied where there will be none, TimeoutError where it takes too long.
        """
        if self._transport is None or self._transport.is_closing():
            raise WorkerDied("the connection is closed")
        loop = asyncio.get_running_loop()
        self._reply = loop.create_future()
        # A bare timer, as `asyncio.timeout` costs three times as much, in every request.
        timer = loop.call_later(limit_s, self._expire, self._reply)
        try:
            self._transport.writelines(self._wire.seal(message))
            return await self._reply
        finally:
            timer.cancel()
            self._reply = None

    def close(self) -> None:
        """Let go of the worker: it sees the end of the stream and exits."""
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports are asyncio's in behaviour, not by inheritance.
        self._transport = cast(asyncio.Transport, transport)

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._wire.buffer()

    def buffer_updated(self, nbytes: int) -> None:
        try:
            messages = self._wire.received(nbytes)
        except WireError as error:
            self._fail(f"its frame was refused: {error}")
            return
        for message in messages:
            if self._reply is None or self._reply.done():
                self._fail(f"it sent a {type(message).__name__} message that nobody asked for")
                return
            self._reply.set_result(message)

    def eof_received(self) -> bool:
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self._fail("the connection is closed")
        self._on_lost()

    def _expire(self, reply: asyncio.Future[Message]) -> None:
        if not reply.done():
            reply.set_exception(TimeoutError())

    def _fail(self, reason: str) -> None:
        self.close()
        if self._reply is not None and not self._reply.done():
            self._reply.set_exception(WorkerDied(reason))
