"""The pieces of one streamed answer, between the worker that makes them and a client.

A worker never waits for a client: its batch has other clients, and a time limit. So pieces
wait here, up to a limit; a client that falls further behind has lost the answer, and its
connection is cut.
"""

import asyncio
from collections import deque
from collections.abc import Callable

from torchkeep.runtime.errors import ServingError
from torchkeep.runtime.messages import Body

MAX_WAITING_BYTES = 64 << 20  # of one answer; the connection's own buffer comes on top
PIECE_BYTES = 128  # what a piece costs beside its bytes, so that tiny ones count too


class ClientTooSlow(ServingError):
    """More of an answer waited for its client than we keep."""

    def __init__(self) -> None:
        super().__init__(f"the client reads too slowly, {MAX_WAITING_BYTES} bytes wait for it")


class PieceStream:
    """A queue of pieces with an end. One task takes them."""

    def __init__(self) -> None:
        # The taker may be stuck in a write, and could not be told by `take`.
        self.on_overrun: Callable[[ClientTooSlow], None] | None = None
        self._waiting: deque[Body] = deque()
        self._waiting_bytes = 0
        self.is_over = False  # ended, or nobody takes any more
        self._error: Exception | None = None
        self._is_cancelled = False
        self._arrived: asyncio.Future[None] | None = None

    def put(self, piece: Body) -> None:
        """One more piece. TorchServe: an empty one writes nothing."""
        if self.is_over or not piece:
            return
        if self._waiting and self._waiting_bytes + len(piece) + PIECE_BYTES > MAX_WAITING_BYTES:
            error = ClientTooSlow()
            self._waiting.clear()
            self.fail(error)
            if self.on_overrun is not None:
                self.on_overrun(error)
            return
        self._waiting.append(piece)
        self._waiting_bytes += len(piece) + PIECE_BYTES
        self._wake()

    def end(self, last: Body) -> None:
        """The last piece, and nothing after it."""
        self.put(last)
        self.is_over = True
        self._wake()

    def fail(self, error: Exception) -> None:
        """The rest will not come: `take` raises this after what has arrived."""
        if not self.is_over:
            self.is_over = True
            self._error = error
            self._wake()

    def cancel(self) -> None:
        """Nobody takes any more: `take` raises CancelledError, like a future's `await`."""
        self.is_over = self._is_cancelled = True
        self._waiting.clear()
        self._wake()

    async def take(self) -> tuple[Body, bool]:
        """The next piece, and whether it is the last; the last may be empty."""
        while not self._waiting and not self.is_over:
            self._arrived = asyncio.get_running_loop().create_future()
            await self._arrived
        if self._is_cancelled:
            raise asyncio.CancelledError
        piece: Body = b""
        if self._waiting:
            piece = self._waiting.popleft()
            self._waiting_bytes -= len(piece) + PIECE_BYTES
        elif self._error is not None:
            raise self._error
        return piece, self.is_over and not self._waiting and self._error is None

    def _wake(self) -> None:
        if self._arrived is not None and not self._arrived.done():
            self._arrived.set_result(None)
