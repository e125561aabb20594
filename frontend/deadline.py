"""An action at a moment that moves with every message."""

import asyncio
from collections.abc import Callable


class Deadline:
    """At most one at a time, by the loop's clock.

    One timer outlives many deadlines: arming one for each would cost more than the rest of what
    is done for a small message.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._action: Callable[[], None] | None = None
        self._due = 0.0
        self._timer: asyncio.TimerHandle | None = None

    @property
    def is_set(self) -> bool:
        return self._action is not None

    @property
    def has_passed(self) -> bool:
        """True as well before the timer has had its turn of the loop."""
        return self._action is not None and self._loop.time() >= self._due

    def set(self, seconds: float, action: Callable[[], None]) -> None:
        """Call `action` in so many seconds, in place of what was set before."""
        self._action = action
        self._due = self._loop.time() + seconds
        if self._timer is not None and self._timer.when() > self._due:
            self._timer.cancel()
            self._timer = None
        if self._timer is None:
            self._timer = self._loop.call_at(self._due, self._look)

    def clear(self) -> None:
        """Nothing happens; the timer goes on, for the next deadline."""
        self._action = None

    def close(self) -> None:
        """Nothing happens any more, and nothing is kept alive by the timer."""
        self._action = None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _look(self) -> None:
        self._timer = None
        action = self._action
        if action is None:
            return
        if self._loop.time() < self._due:
            self._timer = self._loop.call_at(self._due, self._look)
        else:
            self._action = None
            action()
