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
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from logging.handlers import QueueHandler
from typing import TextIO, TypeAlias

START = "torchkeep.start"
ACCESS = "torchkeep.access"
# What log readers look for in a line; the rest of our names say more than TorchServe's would.
_TORCHSERVE_NAMES = {ACCESS: "ACCESS_LOG", "torchkeep.model": "MODEL_LOG"}

_MAX_QUEUED = 10_000  # lines
_MAX_WRITTEN = 64  # lines in one piece
# An access line waits so long for others. Waking the writer for each of them costs a request
# more than everything else that is done for it here.
_GATHER_S = 0.05
_LAST_LINES_S = 2  # how long the end waits for a reader who does not read

_Queue: TypeAlias = "queue.SimpleQueue[logging.LogRecord | None]"  # None ends the writer
# All but tab and newline: a client chooses paths and a worker its words, and neither shall
# move the cursor of whoever reads the log.
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")


@contextmanager
def configure_logging(stream: TextIO | None = None) -> Iterator[None]:
    """Write to `stream` (stdout) until the block ends; by then everything queued is out."""
    target = stream or sys.stdout
    if isinstance(target, io.TextIOWrapper):
        target.reconfigure(errors="backslashreplace")  # LANG=C must not cost a line
    lines: _Queue = queue.SimpleQueue()
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
        records = [lines.get()]
        if records[0] is not None and records[0].name == ACCESS and lines.empty():
            time.sleep(_GATHER_S)
        with suppress(queue.Empty):
            while len(records) < _MAX_WRITTEN:
                records.append(lines.get_nowait())
        is_open = None not in records
        text = "".join(f"{formatter.format(one)}\n" for one in records if one is not None)
        # A reader who has gone must not fill stderr with tracebacks about it.
        with suppress(OSError, ValueError):
            target.write(text)
            target.flush()


class _Formatter(logging.Formatter):
    """TorchServe's pattern, except for start-up steps, which are for a person to read."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s [%(levelname)-5s] %(threadName)s %(name)s - %(message)s")
        self._second = 0
        self._stamp = ""

    def formatTime(self, record: logging.LogRecord, datefmt: str | None = None) -> str:
        """Local time to the millisecond; a second is spelled out once, not once a line."""
        second = int(record.created)
        if second != self._second:
            self._second = second
            self._stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.localtime(second))
        return f"{self._stamp},{int(record.msecs):03d}"

    def format(self, record: logging.LogRecord) -> str:
        text = _CONTROL.sub(lambda match: repr(match[0])[1:-1], record.getMessage())
        if record.name == START:
            return text
        if record.name == ACCESS:
            return self._access_line(record, text)
        if record.levelno == logging.WARNING:
            record.levelname = "WARN"
        record.name = _TORCHSERVE_NAMES.get(record.name, record.name)
        record.msg, record.args = text, None
        return super().format(record)

    def _access_line(self, record: logging.LogRecord, text: str) -> str:
        """The same pattern without the machinery behind it: there is a line for each request."""
        stamp, name = self.formatTime(record), _TORCHSERVE_NAMES[ACCESS]
        head = f"{stamp} [{record.levelname:<5}] {record.threadName} {name} - "
        return head + text.replace("\n", "\\n")  # a request is one line, whatever its path


class _DroppingHandler(QueueHandler):
    """Where the queue is full, lines are counted instead of queued; the next one tells."""

    queue: _Queue

    def __init__(self, lines: _Queue) -> None:
        super().__init__(lines)
        self._dropped = 0

    def prepare(self, record: logging.LogRecord) -> logging.LogRecord:
        # An access line is made of strings and numbers, which nobody changes afterwards: the
        # writer can put them together. Of everybody else's arguments the text is taken here.
        return record if record.name == ACCESS else super().prepare(record)

    def enqueue(self, record: logging.LogRecord) -> None:
        # Called under the handler's lock, so the count needs none of its own.
        if self.queue.qsize() >= _MAX_QUEUED:
            self._dropped += 1
            return
        if self._dropped:
            record.msg = f"({self._dropped} lines before this one were dropped) {record.msg}"
            self._dropped = 0
        self.queue.put(record)
