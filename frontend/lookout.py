"""Keeping the event loop awake for an answer that is about to come."""

import asyncio
import os
from collections.abc import Callable
from time import monotonic

LOOKOUT_S = 0.0003


class Lookout:
    """While it is on, the loop asks the kernel for news instead of sleeping until there are some.

    Waking takes about as long as a quick worker needs for its answer. Whoever else can use the
    core has it meanwhile.
    """

    def __init__(self, is_over: Callable[[], bool]) -> None:
        self._is_over = is_over
        self._loop = asyncio.get_running_loop()
        self._is_on = False
        self._until = 0.0
        # On a single core the answer cannot be made while we look.
        self._is_useful = len(os.sched_getaffinity(0)) > 1

    def begin(self) -> None:
        """Look out for `LOOKOUT_S`, or until it is over."""
        if self._is_useful:
            self._until = monotonic() + LOOKOUT_S
            if not self._is_on:
                self._is_on = True
                self._loop.call_soon(self._look)

    def _look(self) -> None:
        self._is_on = not self._is_over() and monotonic() < self._until
        if self._is_on:
            os.sched_yield()
            self._loop.call_soon(self._look)
