"""Somebody else's blocking code beside the event loop."""

import asyncio
import threading
from typing import Any

import pytest

from torchkeep.frontend.side_thread import in_side_thread


def test_its_result_comes_from_another_thread() -> None:
    assert asyncio.run(in_side_thread(threading.get_ident)) != threading.get_ident()


@pytest.mark.parametrize(
    ("raised", "seen"),
    [(ValueError("x"), ValueError), (SystemExit(1), SystemExit), (StopIteration(), RuntimeError)],
)
def test_what_it_raises_is_raised_here(raised: BaseException, seen: type[BaseException]) -> None:
    def fail() -> Any:
        raise raised

    async def scenario() -> None:
        with pytest.raises(seen):
            await in_side_thread(fail)

    asyncio.run(scenario())


def test_nobody_waits_for_a_thread_that_is_given_up() -> None:
    release, ended = threading.Event(), threading.Event()

    def wait() -> None:
        release.wait(60)
        ended.set()

    async def scenario() -> None:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await in_side_thread(wait)

    asyncio.run(scenario())  # its loop closes, too
    release.set()
    assert ended.wait(60)
