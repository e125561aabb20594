"""What the handlers of one model print, kept in memory: the last of it, and no file anywhere.

Readable by root alone, as /proc/PID/fd/N of the frontend: the link's name says which model.
"""

import os
from contextlib import suppress

MAX_BYTES = 256 << 10
_LEFT_BYTES = MAX_BYTES // 2  # of the old lines, where a new one has no room


class HandlerLog:
    """A bounded file in memory that grows at its end."""

    def __init__(self, name: str) -> None:
        self.descriptor = os.memfd_create(f"handler-log-{name}"[:200])
        self._size = 0
        self._is_open = True

    def add(self, source: str, line: str) -> None:
        """Keep a line. Nothing is kept of a log that is closed."""
        if not self._is_open:
            return
        text = f"{source} {line}\n".encode(errors="backslashreplace")[:_LEFT_BYTES]
        if self._size + len(text) > MAX_BYTES:
            self._forget_oldest()
        with suppress(OSError):  # out of memory: the line is lost, nothing else
            self._size += os.pwrite(self.descriptor, text, self._size)

    def close(self) -> None:
        """May be called twice."""
        if self._is_open:
            self._is_open = False
            os.close(self.descriptor)

    def _forget_oldest(self) -> None:
        left = os.pread(self.descriptor, _LEFT_BYTES, self._size - _LEFT_BYTES)
        left = left[left.find(b"\n") + 1 :]
        os.ftruncate(self.descriptor, 0)
        self._size = os.pwrite(self.descriptor, left, 0)
