"""How much of the frontend's time goes into what handlers print: a fifth, in all.

A handler that prints without end is held back by its full pipe; others notice nothing of it.
"""

from time import monotonic

REST = 4  # times as long as reading took, nobody reads
MIN_PAUSE_S = 0.002  # a shorter rest is saved up, as timers are no finer


class OutputPace:
    """Shared by all pipes of a server's workers."""

    def __init__(self) -> None:
        self._rested_at = 0.0

    def pause_s(self, spent_s: float) -> float:
        """How long the pipe that has just cost `spent_s` is to be left alone; mostly 0."""
        now = monotonic()
        self._rested_at = max(self._rested_at, now) + REST * spent_s
        pause_s = self._rested_at - now
        return pause_s if pause_s >= MIN_PAUSE_S else 0.0
