"""Runs somebody else's blocking code beside the event loop."""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from threading import Thread
from typing import TypeVar

T = TypeVar("T")


async def in_side_thread(function: Callable[[], T]) -> T:
    """What it returns or raises; nobody waits for its thread when the server ends.

    Not `asyncio.to_thread`: its few threads do the server's own work, and the interpreter does
    not end before all of them have.
    """
    loop = asyncio.get_running_loop()
    outcome: asyncio.Future[T] = loop.create_future()

    def settle(result: T | None, error: BaseException | None) -> None:
        if outcome.done():  # nobody waits any more
            return
        if error is not None:
            outcome.set_exception(error)
        else:
            outcome.set_result(result)  # type: ignore[arg-type]  # T may be None

    def run() -> None:
        result, error = None, None
        try:
            result = function()
        except BaseException as raised:
            # A future takes any but this one.
            error = RuntimeError("StopIteration") if isinstance(raised, StopIteration) else raised
        with suppress(RuntimeError):  # the loop is closed
            loop.call_soon_threadsafe(settle, result, error)

    Thread(target=run, name="torchkeep-side", daemon=True).start()
    return await outcome
