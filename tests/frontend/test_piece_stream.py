"""What waits between a worker and a client: the order, the end, and the limit."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from torchkeep.frontend import piece_stream
from torchkeep.frontend.errors import WorkerFailed
from torchkeep.frontend.piece_stream import PIECE_BYTES, ClientTooSlow, PieceStream


def run(scenario: Callable[[], Awaitable[None]]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(10):
            await scenario()

    asyncio.run(bounded())


async def rest(stream: PieceStream) -> list[bytes]:
    pieces, is_last = [], False
    while not is_last:
        piece, is_last = await stream.take()
        pieces.append(bytes(piece))
    return pieces


def test_pieces_are_taken_in_order_and_the_last_is_known() -> None:
    async def scenario() -> None:
        stream = PieceStream()
        stream.put(b"one")
        stream.put(b"two")
        assert await stream.take() == (b"one", False)
        stream.end(b"three")
        assert await stream.take() == (b"two", False)
        assert await stream.take() == (b"three", True)

    run(scenario)


def test_a_taker_waits_for_what_comes_later() -> None:
    async def scenario() -> None:
        stream = PieceStream()
        taken = asyncio.ensure_future(rest(stream))
        for piece in (b"one", b"", b"two"):
            await asyncio.sleep(0)
            stream.put(piece)
        await asyncio.sleep(0)
        stream.end(b"last")
        assert await taken == [b"one", b"two", b"last"]

    run(scenario)


def test_an_empty_last_piece_still_ends_the_stream() -> None:
    async def scenario() -> None:
        stream = PieceStream()
        stream.put(b"one")
        stream.end(b"")
        assert await stream.take() == (b"one", True)
        only = PieceStream()
        only.end(b"")
        assert await only.take() == (b"", True)
        late = PieceStream()
        late.put(b"one")
        assert await late.take() == (b"one", False)
        late.end(b"")
        assert await late.take() == (b"", True)

    run(scenario)


def test_an_error_comes_after_what_had_arrived_and_nothing_after_it() -> None:
    async def scenario() -> None:
        stream = PieceStream()
        stream.put(b"one")
        stream.fail(WorkerFailed(500, "Worker died."))
        stream.put(b"late")
        stream.end(b"late")
        stream.fail(WorkerFailed(503, "later"))
        assert await stream.take() == (b"one", False)
        with pytest.raises(WorkerFailed, match="died"):
            await stream.take()

    run(scenario)


def test_an_error_wakes_who_waits() -> None:
    async def scenario() -> None:
        stream = PieceStream()
        taking = asyncio.ensure_future(stream.take())
        await asyncio.sleep(0)
        stream.fail(WorkerFailed(500, "Worker died."))
        with pytest.raises(WorkerFailed):
            await taking

    run(scenario)


def test_cancelled_it_keeps_nothing_and_ends_who_waits() -> None:
    async def scenario() -> None:
        waited_for = PieceStream()
        taking = asyncio.ensure_future(waited_for.take())
        await asyncio.sleep(0)
        waited_for.cancel()
        with pytest.raises(asyncio.CancelledError):
            await taking
        full = PieceStream()
        full.put(b"one")
        full.cancel()
        full.put(b"two")
        with pytest.raises(asyncio.CancelledError):
            await full.take()

    run(scenario)


@pytest.mark.parametrize("size", [1, 1000])
def test_beyond_the_limit_nothing_is_kept(monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    cost = size + PIECE_BYTES
    monkeypatch.setattr(piece_stream, "MAX_WAITING_BYTES", 3 * cost)

    async def scenario() -> None:
        cuts: list[ClientTooSlow] = []
        stream = PieceStream()
        stream.on_overrun = cuts.append
        for _ in range(3):
            stream.put(b"x" * size)
        assert await stream.take() == (b"x" * size, False)
        stream.put(b"x" * size)  # exactly the limit
        assert not cuts
        stream.put(b"x")
        assert len(cuts) == 1
        stream.put(b"x")
        stream.end(b"x")
        assert len(cuts) == 1
        with pytest.raises(ClientTooSlow):
            await stream.take()

    run(scenario)


def test_one_piece_may_be_larger_than_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(piece_stream, "MAX_WAITING_BYTES", 10)

    async def scenario() -> None:
        stream = PieceStream()
        stream.put(b"x" * 1000)
        assert (await stream.take())[0] == b"x" * 1000
        stream.put(b"y" * 1000)
        stream.put(b"z")
        with pytest.raises(ClientTooSlow):
            await stream.take()

    run(scenario)
