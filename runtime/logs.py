"""Logging of the server: what a person wants to read, written without stopping a request.

Three kinds of lines reach stdout: start-up steps as bare sentences, warnings, and one access
line per request. All pass a bounded queue to a thread of their own, so a reader who does not
read costs lines, never latency. Nothing of a request but its path and sizes is ever logged;
what handlers print on stdout is below a warning and stays unwritten for the same reason.
"""

import io
import logging
import queue
import re
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from logging.handlers import QueueHandler
from typing import TextIO, TypeAlias

START = "torchkeep.start"
ACCESS = "torchkeep.access"
# What log readers look for in a line; the rest of our names say more than TorchServe's would.
_TORCHSERVE_NAMES = {ACCESS: "ACCESS_LOG", "torchkeep.model": "MODEL_LOG"}

_MAX_QUEUED = 10_000  # lines
_LAST_LINES_S = 2  # how long the end waits for a reader who does not read

_Queue: TypeAlias = "queue.Queue[logging.LogRecord | None]"  # None ends the writer
# All but tab and newline: a client chooses paths and a worker its words, and neither shall
# move the cursor of whoever reads the log.
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")


@contextmanager
def configure_logging(stream: TextIO | None = None) -> Iterator[None]:
    """Write to `stream` (stdout) until the block ends; by then everything queued is out."""
    target = _Lines(stream or sys.stdout)
    if isinstance(target.stream, io.TextIOWrapper):
        target.stream.reconfigure(errors="backslashreplace")  # LANG=C must not cost a line
    target.setFormatter(_Formatter())
    lines: _Queue = queue.Queue(_MAX_QUEUED)
    handler = _DroppingHandler(lines)
    writer = threading.Thread(target=_write, args=(lines, target), name="logs", daemon=True)
    root = logging.getLogger()
    levels = {root: logging.WARNING}
    levels |= {logging.getLogger(name): logging.INFO for name in (START, ACCESS)}
    before = {logger: logger.level for logger in levels}
    for logger, level in levels.items():
        logger.setLevel(level)
    root.addHandler(handler)
    writer.start()
    try:
        yield
    finally:
        root.removeHandler(handler)
        for logger, level in before.items():
            logger.setLevel(level)
        with suppress(queue.Full):
            lines.put(None, timeout=_LAST_LINES_S)
        writer.join(_LAST_LINES_S)
        handler.close()


def start_step(text: str) -> None:
    """One line of the start, as it stands: `Model server started.` is waited for by tools."""
    logging.getLogger(START).info("%s", text)


def _write(lines: _Queue, target: logging.Handler) -> None:
    while record := lines.get():
        target.handle(record)


class _Formatter(logging.Formatter):
    """TorchServe's pattern, except for start-up steps, which are for a person to read."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s [%(levelname)-5s] %(threadName)s %(name)s - %(message)s")
        self.default_time_format = "%Y-%m-%dT%H:%M:%S"

    def format(self, record: logging.LogRecord) -> str:
        text = _CONTROL.sub(lambda match: repr(match[0])[1:-1], record.getMessage())
        if record.name == START:
            return text
        if record.name == ACCESS:
            text = text.replace("\n", "\\n")  # a request is one line, whatever its path
        if record.levelno == logging.WARNING:
            record.levelname = "WARN"
        record.name = _TORCHSERVE_NAMES.get(record.name, record.name)
        record.msg, record.args = text, None
        return super().format(record)


class _DroppingHandler(QueueHandler):
    """Where the queue is full, lines are counted instead of queued; the next one tells."""

    queue: _Queue

    def __init__(self, lines: _Queue) -> None:
        super().__init__(lines)
        self._dropped = 0

    def enqueue(self, record: logging.LogRecord) -> None:
        # Called under the handler's lock, so the count needs none of its own.
        if self.queue.full():
            self._dropped += 1
            return
        if self._dropped:
            record.msg = f"({self._dropped} lines before this one were dropped) {record.msg}"
            self._dropped = 0
        self.queue.put_nowait(record)


class _Lines(logging.StreamHandler[TextIO]):
    def handleError(self, record: logging.LogRecord) -> None:
        """A reader who has gone must not fill stderr with tracebacks about it."""
