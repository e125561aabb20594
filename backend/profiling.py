"""`TS_BENCHMARK=true`: a profile of what a worker does for its requests, for `pstats`.

TorchServe's place for it is one file for all workers: the last one that answered wrote it.
"""

import cProfile
import logging
import marshal
import os
from collections.abc import Callable
from typing import ParamSpec, TypeVar

log = logging.getLogger(__name__)

P = ParamSpec("P")
T = TypeVar("T")

PROFILE = "/tmp/tsPythonProfile.prof"


def is_profiling_asked_for() -> bool:
    return os.environ.get("TS_BENCHMARK") in ("True", "true", "TRUE")


class Profiler:
    """Adds up the calls that are made through it, and keeps the file up to date."""

    def __init__(self, path: str = PROFILE) -> None:
        self._path = path
        self._profile = cProfile.Profile()
        self._is_failing = False

    def call(self, function: Callable[P, T], *arguments: P.args, **named: P.kwargs) -> T:
        """Call it; a file that cannot be written is a warning."""
        try:
            return self._profile.runcall(function, *arguments, **named)
        finally:
            self._write()

    def _write(self) -> None:
        self._profile.create_stats()
        # Everybody may write to that directory: a link there is not followed.
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW
        try:
            with open(os.open(self._path, flags, 0o644), "wb") as file:
                marshal.dump(self._profile.stats, file)
            self._is_failing = False
        except OSError as error:
            if not self._is_failing:  # once, until it works again
                log.warning("TS_BENCHMARK: %s cannot be written: %s", self._path, error.strerror)
            self._is_failing = True
