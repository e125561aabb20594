"""Waiting for a state, in an event loop."""

import asyncio
import time
from collections.abc import Callable


async def until(condition: Callable[[], object], deadline_s: float = 20) -> None:
    end = time.monotonic() + deadline_s
    while not condition():
        assert time.monotonic() < end, "not in time"
        await asyncio.sleep(0.01)
