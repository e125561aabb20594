"""A worker whose handler is a coroutine: the same connection, served by an event loop.

Each `Predict` becomes a task, and each task one `Predictions`, whenever it is done. Pieces may
come from any thread, and frames leave in the order in which they were sealed.
"""

import asyncio
import socket
import threading
from collections.abc import Sequence
from functools import partial
from typing import cast

from torchkeep.backend.concurrent_service import ConcurrentService
from torchkeep.backend.sending import FORKED
from torchkeep.runtime.errors import WireError
from torchkeep.runtime.messages import Body, Cancel, Message, Predict, Predictions, RequestInput
from torchkeep.runtime.wire import Wire


class ConcurrentWorker(asyncio.BufferedProtocol):
    """Serves a connection, once the model is loaded, until it ends."""

    def __init__(self, connection: socket.socket, wire: Wire, service: ConcurrentService) -> None:
        self._connection = connection
        self._wire = wire
        self._service = service
        self._tasks: dict[str, asyncio.Task[Predictions]] = {}  # by the id that begins the batch
        self._lock = threading.Lock()  # over these two
        self._sealed: list[Body] = []
        self._is_flushing = False

    def run(self) -> None:
        """Until the frontend lets go of this worker, and what it was at has been cancelled."""
        self._loop = self._service.loop
        self._service.connect(self.send)
        self._loop.run_until_complete(self._serve())

    def send(self, message: Message) -> None:
        """From any thread of this process."""
        with self._lock:
            try:
                self._sealed += self._wire.seal(message)
            except WireError:
                # It ends the loop, too, of which both processes would have a part.
                raise SystemExit(FORKED) from None
            if self._is_flushing:
                return
            self._is_flushing = True
        self._loop.call_soon_threadsafe(self._flush)

    async def _serve(self) -> None:
        self._over = self._loop.create_future()
        await self._loop.connect_accepted_socket(lambda: self, self._connection)
        async with asyncio.TaskGroup() as self._group:
            try:
                await self._over
            finally:
                for task in self._tasks.values():
                    task.cancel()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._wire.buffer()

    def buffer_updated(self, nbytes: int) -> None:
        try:
            for message in self._wire.received(nbytes):
                self._take(message)
        except WireError as error:
            self._end(SystemExit(f"The frontend's frame was refused: {error}"))

    def connection_lost(self, exc: Exception | None) -> None:
        self._end(None)

    def _take(self, message: Message) -> None:
        match message:
            case Predict(requests) if requests:
                first = requests[0].request_id
                task = self._group.create_task(self._service.answer(requests))
                self._tasks[first] = task
                task.add_done_callback(partial(self._reply, first, requests))
            case Cancel(first):
                # It may have been answered in the meantime.
                if first in self._tasks:
                    self._tasks[first].cancel()
            case _:
                kind = type(message).__name__
                self._end(SystemExit(f"The frontend sent an unexpected {kind} message"))

    def _reply(
        self, first: str, requests: Sequence[RequestInput], task: asyncio.Task[Predictions]
    ) -> None:
        del self._tasks[first]
        if task.cancelled():  # before it began
            self.send(self._service.unanswered(requests))
        elif task.exception() is None:
            self.send(task.result())

    def _flush(self) -> None:
        with self._lock:
            buffers, self._sealed = self._sealed, []
            self._is_flushing = False
        self._transport.writelines(buffers)

    def _end(self, error: BaseException | None) -> None:
        if self._over.done():
            return
        if error is None:
            print("Frontend disconnected.")  # noqa: T201 - TorchServe: goes to the model log
            self._over.set_result(None)
        else:
            self._over.set_exception(error)
