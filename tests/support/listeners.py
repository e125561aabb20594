"""Listeners that answer while a test talks to them."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from torchkeep.frontend.listener import Listener

DEADLINE_S = 30.0


@asynccontextmanager
async def answering(listener: Listener) -> AsyncIterator[Listener]:
    """From its start to the end of its drain, all of which the deadline is for."""
    async with asyncio.timeout(DEADLINE_S), asyncio.TaskGroup() as tasks:
        tasks.create_task(listener.serve())
        await listener.wait_started()
        try:
            yield listener
        finally:
            listener.begin_drain()
