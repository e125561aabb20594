"""One sealed connection to a worker: a message out, its reply in, chunks before the reply."""

import asyncio
import secrets
import socket
from collections.abc import Callable
from typing import cast

from torchkeep.runtime.errors import ServingError, WireError
from torchkeep.runtime.messages import Chunk, Message
from torchkeep.runtime.wire import SECRET_BYTES, Wire


class WorkerDied(ServingError):
    """The worker closed its connection, or sent what cannot be trusted. It is over."""


class WorkerLeft(WorkerDied):
    """The connection ended, and nothing but the exit status can say why."""


class LoadRefused(WorkerDied):
    """The process lives, but its handler could not be loaded."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


class WorkerConnection(asyncio.BufferedProtocol):
    """Sends one message at a time and waits for the reply that ends it.

    `on_chunk` is called for each chunk before the reply; WorkerDied from it ends the connection.
    """

    def __init__(
        self,
        worker_id: str,
        max_body_bytes: int,
        on_lost: Callable[[], None],
        on_chunk: Callable[[Chunk], None],
    ) -> None:
        self._worker_id = worker_id
        self._max_body_bytes = max_body_bytes
        self._on_lost = on_lost
        self._on_chunk = on_chunk
        self._reply: asyncio.Future[Message] | None = None
        self._transport: asyncio.Transport | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._limit_s = 0.0  # between one message of the worker and the next

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

        Raises WorkerDied where there will be none, TimeoutError where it takes too long; each
        piece of a stream restarts the clock.
        """
        if self._transport is None or self._transport.is_closing():
            raise WorkerLeft("the connection is closed")
        self._reply = asyncio.get_running_loop().create_future()
        self._limit_s = limit_s
        self._restart_clock()
        try:
            self._transport.writelines(self._wire.seal(message))
            return await self._reply
        finally:
            if self._timer is not None:
                self._timer.cancel()
            self._timer = self._reply = None

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
            self._fail(WorkerDied(f"its frame was refused: {error}"))
            return
        for message in messages:
            if self._reply is None or self._reply.done():
                kind = type(message).__name__
                self._fail(WorkerDied(f"it sent a {kind} message that nobody asked for"))
                return
            if not isinstance(message, Chunk):
                self._reply.set_result(message)
                continue
            self._restart_clock()
            try:
                self._on_chunk(message)
            except WorkerDied as error:
                self._fail(error)
                return

    def eof_received(self) -> bool:
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self._fail(WorkerLeft("the connection is closed"))
        self._on_lost()

    def _restart_clock(self) -> None:
        # A bare timer, as `asyncio.timeout` costs three times as much, in every request.
        if self._timer is not None:
            self._timer.cancel()
        self._timer = asyncio.get_running_loop().call_later(self._limit_s, self._expire)

    def _expire(self) -> None:
        if self._reply is not None and not self._reply.done():
            self._reply.set_exception(TimeoutError())

    def _fail(self, error: WorkerDied) -> None:
        self.close()
        if self._reply is not None and not self._reply.done():
            self._reply.set_exception(error)
