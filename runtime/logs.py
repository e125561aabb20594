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
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from logging.handlers import QueueHandler
from typing import TextIO, TypeAlias

START = "torchkeep.start"
# What log readers look for in a line; the rest of our names say more than TorchServe's would.
_TORCHSERVE_NAMES = {"torchkeep.model": "MODEL_LOG"}

_MAX_QUEUED = 10_000  # lines
_MAX_WRITTEN = 64  # lines in one piece
# Access lines wait so long for others. Waking the writer for each of them costs a request more
# than everything else that is done for it here.
_GATHER_S = 0.05
_LAST_LINES_S = 2  # how long the end waits for a reader who does not read

# An AccessLog in the queue says that it has lines; None ends the writer.
_Queue: TypeAlias = "queue.SimpleQueue[logging.LogRecord | AccessLog | None]"
# All but tab and newline: a client chooses paths and a worker its words, and neither shall
# move the cursor of whoever reads the log.
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")


class AccessLog:
    """One line for each answered request, in TorchServe's pattern.

    Put together and collected here: `logging` would make a record of it, and wake the writer
    for it, which is a third of what a small request costs the frontend.
    """

    def __init__(self, lines: _Queue) -> None:
        self._queue = lines
        # Filled by the event loop, emptied by the writer: each of their steps is atomic.
        self._lines: deque[str] = deque()
        self._is_announced = False
        self._dropped = 0
        self._second = 0
        self._stamp = ""

    def add(
        self, client: tuple[str, int] | None, method: str, raw_path: bytes, status: int, ms: float
    ) -> None:
        """Without the query string: it may hold what the client meant for us only."""
        if len(self._lines) >= _MAX_QUEUED:
            self._dropped += 1
            return
        now = time.time()
        second = int(now)
        if second != self._second:
            self._second, self._stamp = second, _stamp(second)
        path = raw_path.decode("ascii", "backslashreplace")
        if not path.isprintable():
            path = _CONTROL.sub(_spelled, path).replace("\n", "\\n")  # a request is one line
        peer = "127.0.0.1" if client is None else f"/{client[0]}:{client[1]}"
        head = f"{self._stamp},{int((now - second) * 1000):03d} [INFO ] MainThread ACCESS_LOG - "
        if self._dropped:
            head += f"({self._dropped} lines before this one were dropped) "
            self._dropped = 0
        self._lines.append(f'{head}{peer} "{method} {path} HTTP/1.1" {status} {int(ms)}\n')
        if not self._is_announced:
            self._is_announced = True
            self._queue.put(self)

    def take(self) -> str:
        """Every line so far, from the writer's thread."""
        self._is_announced = False  # first: a line that comes now is announced once more
        lines = []
        with suppress(IndexError):
            while True:
                lines.append(self._lines.popleft())
        return "".join(lines)


@contextmanager
def configure_logging(stream: TextIO | None = None) -> Iterator[AccessLog]:
    """Write to `stream` (stdout) until the block ends; by then everything queued is out."""
    target = stream or sys.stdout
    if isinstance(target, io.TextIOWrapper):
        target.reconfigure(errors="backslashreplace")  # LANG=C must not cost a line
    lines: _Queue = queue.SimpleQueue()
    handler = _DroppingHandler(lines)
    writer = threading.Thread(target=_write, args=(lines, target), name="logs", daemon=True)
    root = logging.getLogger()
    levels = {root: logging.WARNING, logging.getLogger(START): logging.INFO}
    # Its warnings quote bytes of the body that it could not read; the answer says it is bad.
    levels[logging.getLogger("python_multipart")] = logging.CRITICAL
    before = {logger: logger.level for logger in levels}
    for logger, level in levels.items():
        logger.setLevel(level)
    root.addHandler(handler)
    writer.start()
    try:
        yield AccessLog(lines)
    finally:
        root.removeHandler(handler)
        for logger, level in before.items():
            logger.setLevel(level)
        lines.put(None)
        writer.join(_LAST_LINES_S)
        handler.close()


def start_step(text: str) -> None:
    """One line of the start, as it stands: `Model server started.` is waited for by tools."""
    logging.getLogger(START).info("%s", text)


def _write(lines: _Queue, target: TextIO) -> None:
    formatter = _Formatter()
    is_open = True
    while is_open:
        items = [lines.get()]
        if isinstance(items[0], AccessLog) and lines.empty():
            time.sleep(_GATHER_S)
        with suppress(queue.Empty):
            while len(items) < _MAX_WRITTEN:
                items.append(lines.get_nowait())
        is_open = None not in items
        text = "".join(
            item.take() if isinstance(item, AccessLog) else f"{formatter.format(item)}\n"
            for item in items
            if item is not None
        )
        # A reader who has gone must not fill stderr with tracebacks about it.
        with suppress(OSError, ValueError):
            target.write(text)
            target.flush()


def _stamp(second: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.localtime(second))


def _spelled(match: re.Match[str]) -> str:
    return repr(match[0])[1:-1]


class _Formatter(logging.Formatter):
    """TorchServe's pattern, except for start-up steps, which are for a person to read."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s [%(levelname)-5s] %(threadName)s %(name)s - %(message)s")

    def formatTime(self, record: logging.LogRecord, datefmt: str | None = None) -> str:
        """Local time to the millisecond."""
        return f"{_stamp(int(record.created))},{int(record.msecs):03d}"

    def format(self, record: logging.LogRecord) -> str:
        text = _CONTROL.sub(_spelled, record.getMessage())
        if record.name == START:
            return text
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
        if self.queue.qsize() >= _MAX_QUEUED:
            self._dropped += 1
            return
        if self._dropped:
            record.msg = f"({self._dropped} lines before this one were dropped) {record.msg}"
            self._dropped = 0
        self.queue.put(record)
