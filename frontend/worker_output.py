"""What a worker process prints, line by line into the model log."""

import asyncio
import logging
import os
import re

MODEL_LOG = logging.getLogger("torchkeep.model")

_READ_BYTES = 1 << 16
_MAX_LINE_BYTES = 8192
# A handler's print must not move the cursor of whoever reads the log, nor forge lines in it.
_CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f-\x9f]")


class WorkerOutput:
    """Reads one pipe of a worker until it ends; over-long lines are cut."""

    def __init__(self, descriptor: int, level: int, source: str) -> None:
        os.set_blocking(descriptor, False)
        self._descriptor = descriptor
        self._level = level
        self._source = source
        self._rest = b""
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(descriptor, self._read)
        self._open = True

    def close(self) -> None:
        """Log what is left and let go of the pipe."""
        while self._open and self._read():
            pass
        self._end()

    def _read(self) -> bool:
        try:
            data = os.read(self._descriptor, _READ_BYTES)
        except BlockingIOError:
            return False
        if not data:
            self._end()
            return False
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            self._log(line)
        if len(self._rest) > _MAX_LINE_BYTES:
            self._log(self._rest)
            self._rest = b""
        return True

    def _log(self, line: bytes) -> None:
        if MODEL_LOG.isEnabledFor(self._level):
            text = line[:_MAX_LINE_BYTES].decode("utf-8", "backslashreplace")
            MODEL_LOG.log(self._level, "%s %s", self._source, _CONTROL.sub("?", text))

    def _end(self) -> None:
        if self._open:
            self._open = False
            self._loop.remove_reader(self._descriptor)
            os.close(self._descriptor)
            if self._rest:
                self._log(self._rest)
                self._rest = b""
