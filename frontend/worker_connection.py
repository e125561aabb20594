"""One sealed connection to a worker: a message out, its reply in, chunks before the reply."""

import asyncio
import secrets
import socket
from collections.abc import Callable
from typing import cast

from torchkeep.frontend.deadline import Deadline
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
    """Each message that is sent is answered by one reply, in order; chunks may come before it.

    `on_message` gets both; WorkerDied from it ends the connection. `on_end` is called with
    the reason when no reply will come any more: WorkerDied, or TimeoutError for one that takes
    too long.
    """

    def __init__(
        self,
        worker_id: str,
        max_body_bytes: int,
        on_message: Callable[[Message], None],
        on_end: Callable[[Exception], None],
    ) -> None:
        self._worker_id = worker_id
        self._max_body_bytes = max_body_bytes
        self._on_message = on_message
        self._on_end = on_end
        self._awaited = 0  # replies
        self._reply: asyncio.Future[Message] | None = None  # of an `exchange`
        self._transport: asyncio.Transport | None = None
        self._loop = asyncio.get_running_loop()
        self._deadline = Deadline(self._loop)  # while a reply is awaited
        self._limit_s: float | None = None  # between one message of the worker and the next

    async def open(self) -> socket.socket:
        """Connect, with the secret already on its way; the returned end is the worker's."""
        ours, theirs = socket.socketpair()
        secret = bytearray(secrets.token_bytes(SECRET_BYTES))
        ours.sendall(secret)
        self._wire = Wire("frontend", secret, self._worker_id, self._max_body_bytes)
        secret[:] = bytes(SECRET_BYTES)
        try:
            await self._loop.create_unix_connection(lambda: self, sock=ours)
        except BaseException:
            ours.close()
            theirs.close()
            raise
        return theirs

    def post(self, message: Message, limit_s: float | None) -> None:
        """Send a message; each message of the worker restarts the clock, if there is a limit.

        One that is sent while another waits for its reply is read by the worker after that.

        Raises WorkerLeft when the connection has ended.
        """
        if self._transport is None or self._transport.is_closing():
            raise WorkerLeft("the connection is closed")
        self._awaited += 1
        self._limit_s = limit_s
        if self._awaited == 1:
            self._restart_clock()
        self._transport.writelines(self._wire.seal(message))

    def tell(self, message: Message) -> None:
        """Send a message that has no reply; of a connection that has ended nothing is asked."""
        if self._transport is not None and not self._transport.is_closing():
            self._transport.writelines(self._wire.seal(message))

    async def exchange(self, message: Message, limit_s: float) -> Message:
        """The reply to `message`, which then reaches nobody else.

        Raises WorkerDied where there will be none, TimeoutError where it takes too long.
        """
        self._reply = self._loop.create_future()
        try:
            self.post(message, limit_s)
            return await self._reply
        finally:
            self._reply = None

    def close(self) -> None:
        """Let go of the worker: it sees the end of the stream and exits."""
        self._deadline.close()
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports are asyncio's in behaviour, not by inheritance.
        self._transport = cast(asyncio.Transport, transport)

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._wire.buffer()

    def buffer_updated(self, nbytes: int) -> None:
        try:
            for message in self._wire.received(nbytes):
                self._take(message)
        except WireError as error:
            self._fail(WorkerDied(f"its frame was refused: {error}"))
        except WorkerDied as error:
            self._fail(error)

    def eof_received(self) -> bool:
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self._fail(WorkerLeft("the connection is closed"))

    def _take(self, message: Message) -> None:
        if not self._awaited:
            kind = type(message).__name__
            raise WorkerDied(f"it sent a {kind} message that nobody asked for")
        if self._deadline.has_passed:
            self._time_out()
            return
        if isinstance(message, Chunk):
            self._restart_clock()
            self._on_message(message)
            return
        self._awaited -= 1
        if self._awaited:
            self._restart_clock()
        else:
            self._deadline.clear()
        if self._reply is None:
            self._on_message(message)
        elif not self._reply.done():
            self._reply.set_result(message)

    def _restart_clock(self) -> None:
        if self._limit_s is None:
            self._deadline.clear()
        else:
            self._deadline.set(self._limit_s, self._time_out)

    def _time_out(self) -> None:
        self._end(TimeoutError())

    def _fail(self, error: WorkerDied) -> None:
        self.close()
        self._end(error)

    def _end(self, error: Exception) -> None:
        self._deadline.clear()
        self._awaited = 0  # a reply that comes after all comes too late
        if self._reply is None:
            self._on_end(error)
        elif not self._reply.done():
            self._reply.set_exception(error)
