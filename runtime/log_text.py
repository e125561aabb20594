"""What all parts of the log share: how time and doubtful characters are spelled, and the bell."""

import re
import time
from collections.abc import Callable
from functools import lru_cache

# All but tab and newline: a client chooses paths and a worker its words, and neither shall
# move the cursor of whoever reads the log.
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")


@lru_cache(maxsize=4)  # each second of a busy server is spelled thousands of times
def stamp(second: int) -> str:
    """Local time, as TorchServe writes it, without the milliseconds."""
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.localtime(second))


def printable(text: str) -> str:
    """The text with control characters spelled out; it may still have several lines."""
    return _CONTROL.sub(_spelled, text)


class Bell:
    """Wakes the writer once for all that is collected until it looks."""

    def __init__(self, wake: Callable[["Bell"], None]) -> None:
        self.has_rung = False
        self._wake = wake

    def ring(self) -> None:
        self.has_rung = True
        self._wake(self)


def _spelled(match: re.Match[str]) -> str:
    return repr(match[0])[1:-1]
