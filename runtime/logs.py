"""Logging of the server: what a person wants to read, written without stopping a request.

Lines pass a bounded queue to a thread of their own, so that a reader who does not read, or a
slow disk, costs lines and never latency. What there is for every request, access lines and
metrics, is collected instead, and looked at twenty times a second.

    stdout             start-up steps as bare sentences, warnings, access lines
    ts_log.log         the same with a time to each, what workers do, and what models print
    model_log.log      what models print
    access_log.log     access lines
    ts_metrics.log     metrics of the server, with `metrics_mode` log or legacy
    model_metrics.log  metrics of models, likewise

Nothing of a request but its path and sizes is ever logged by the server. What a handler prints
may be more than that: it stays out of stdout unless it is a warning (stderr).
"""

import io
import logging
import queue
import sys
import threading
import time
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from logging.handlers import QueueHandler
from typing import Any, Protocol, TextIO, TypeAlias

from torchkeep.runtime.log_text import Bell, printable, stamp
from torchkeep.runtime.metric_log import MetricLog

START = "torchkeep.start"
MODEL = "torchkeep.model"
WORKER = "torchkeep.worker"  # what the server does with a worker, whose name comes first
STDOUT_LEVELS = {
    "": logging.WARNING,
    START: logging.INFO,
    # Its warnings quote bytes of the body that it could not read; the answer says it is bad.
    "python_multipart": logging.CRITICAL,
}
# What log readers look for in a line; the rest of our names say more than TorchServe's would.
TORCHSERVE_NAMES = {MODEL: "MODEL_LOG"}

_MAX_QUEUED = 10_000  # lines
_MAX_WRITTEN = 64  # lines in one piece
# Access lines wait so long for others. Waking the writer for each of them costs a request more
# than everything else that is done for it here.
_GATHER_S = 0.05
_LAST_LINES_S = 2  # how long the end waits for a reader who does not read

# In an access line: between time and text, where stdout has more than access_log.log. No path
# can hold it.
MARK = "\0"


@dataclass(frozen=True, slots=True)
class Routed:
    """A record for one of the handlers of the user's own logging configuration."""

    record: logging.LogRecord
    handler: logging.Handler


# The bell says that lines were collected; None ends the writer.
Item: TypeAlias = logging.LogRecord | Routed | Bell | None
Queue: TypeAlias = "queue.SimpleQueue[Item]"


class AccessLog:
    """One line for each answered request, in TorchServe's pattern.

    Put together and collected here: `logging` would make a record of it, and wake the writer
    for it, which is a third of what a small request costs the frontend.
    """

    def __init__(self, bell: Bell) -> None:
        self._bell = bell
        # Filled by the event loop, emptied by the writer: each of their steps is atomic.
        self._lines: deque[str] = deque()
        self._dropped = 0
        self._second = 0
        self._stamp = ""

    def add(
        self,
        client: tuple[str, int] | None,
        method: str,
        raw_path: bytes,
        status: int,
        ms: float,
        http_version: str = "1.1",
    ) -> None:
        """Without the query string: it may hold what the client meant for us only."""
        if len(self._lines) >= _MAX_QUEUED:
            self._dropped += 1
            return
        now = time.time()
        second = int(now)
        if second != self._second:
            self._second, self._stamp = second, stamp(second)
        path = raw_path.decode("ascii", "backslashreplace")
        if not path.isprintable():
            path = printable(path).replace("\n", "\\n")  # a request is one line
        peer = "127.0.0.1" if client is None else f"/{client[0]}:{client[1]}"
        head = f"{self._stamp},{int((now - second) * 1000):03d}{MARK}"
        if self._dropped:
            head += f"({self._dropped} lines before this one were dropped) "
            self._dropped = 0
        request = f"{method} {path} HTTP/{http_version}"
        self._lines.append(f'{head}{peer} "{request}" {status} {int(ms)}\n')
        if not self._bell.has_rung:
            self._bell.ring()

    def take(self) -> str:
        """Every line so far, from the writer's thread; each with a MARK behind its time."""
        lines = self._lines
        return "".join([lines.popleft() for _ in range(len(lines))])


@dataclass(frozen=True, slots=True)
class Logs:
    """Where the event loop leaves what there is for every request."""

    access: AccessLog
    ts_metrics: MetricLog
    model_metrics: MetricLog


class Outlet(Protocol):
    """Where lines go; `install` and `uninstall` aside, the writer's thread is what calls it."""

    keeps_metrics: bool  # whether lines of metrics are wanted at all

    def install(self, lines: Queue) -> None:
        """Let what is logged reach the queue. Raises ConfigError where that cannot be."""

    def uninstall(self) -> None:
        """Leave Python's logging as it was."""

    def record(self, record: logging.LogRecord) -> None: ...
    def access(self, marked: str) -> None: ...
    def metrics(self, name: str, lines: str) -> None: ...
    def flush(self) -> None: ...
    def close(self) -> None: ...


class Tap:
    """A handler at Python's root logger that fills the queue, and the levels that go with it."""

    def __init__(self, levels: Mapping[str, int]) -> None:
        self._levels = levels
        self._before: dict[logging.Logger, int] = {}
        self._handler: DroppingHandler | None = None

    def install(self, lines: Queue) -> None:
        self._handler = DroppingHandler(lines)
        for name, level in self._levels.items():
            logger = logging.getLogger(name)
            self._before[logger] = logger.level
            logger.setLevel(level)
        logging.getLogger().addHandler(self._handler)

    def uninstall(self) -> None:
        assert self._handler is not None
        logging.getLogger().removeHandler(self._handler)
        for logger, level in self._before.items():
            logger.setLevel(level)
        self._handler.close()


class Stdout:
    """The server's own stdout, in TorchServe's pattern but for the steps of the start."""

    keeps_metrics = False

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream or sys.stdout
        self._tap = Tap(STDOUT_LEVELS)
        if isinstance(self._stream, io.TextIOWrapper):
            self._stream.reconfigure(errors="backslashreplace")  # LANG=C must not cost a line
        self._text: list[str] = []

    def install(self, lines: Queue) -> None:
        self._tap.install(lines)

    def uninstall(self) -> None:
        self._tap.uninstall()

    def record(self, record: logging.LogRecord) -> None:
        if record.name == START:
            self._text.append(f"{record.msg}\n")
        elif record.levelno >= logging.WARNING:
            self._text.append(spelled(record))

    def access(self, marked: str) -> None:
        self._text.append(marked.replace(MARK, " [INFO ] MainThread ACCESS_LOG - "))

    def metrics(self, name: str, lines: str) -> None:
        """Not here: a container's log is read by people."""

    def say(self, text: str) -> None:
        self._text.append(text)

    def flush(self) -> None:
        text, self._text = "".join(self._text), []
        # A reader who has gone must not fill stderr with tracebacks about it.
        with suppress(OSError, ValueError):
            self._stream.write(text)
            self._stream.flush()

    def close(self) -> None:
        """The stream is not ours to close."""


@contextmanager
def configure_logging(outlet: Outlet | None = None) -> Iterator[Logs]:
    """Write to `outlet` (stdout) until the block ends; by then everything queued is out."""
    outlet = outlet or Stdout()
    lines: Queue = queue.SimpleQueue()
    bell = Bell(lines.put)
    logs = Logs(AccessLog(bell), MetricLog(bell), MetricLog(bell, has_request_ids=True))
    writer = threading.Thread(target=_write, args=(lines, logs, outlet), name="logs", daemon=True)
    outlet.install(lines)
    writer.start()
    try:
        yield logs
    finally:
        outlet.uninstall()
        lines.put(None)
        writer.join(_LAST_LINES_S)


def start_step(text: str) -> None:
    """One line of the start, as it stands: `Model server started.` is waited for by tools."""
    logging.getLogger(START).info("%s", text)


def spelled(record: logging.LogRecord) -> str:
    """TorchServe's pattern of ts_log.log, model_log.log and stdout."""
    return f"{_FORMATTER.format(record)}\n"


def _write(lines: Queue, logs: Logs, outlet: Outlet) -> None:
    is_open = True
    while is_open:
        items = [lines.get()]
        if isinstance(items[0], Bell) and lines.empty():
            time.sleep(_GATHER_S)
        with suppress(queue.Empty):
            while len(items) < _MAX_WRITTEN:
                items.append(lines.get_nowait())
        is_open = None not in items
        for item in items:
            match item:
                case Bell():
                    _take_collected(item, logs, outlet)
                case logging.LogRecord():
                    outlet.record(printable_record(item))
                case Routed(record, handler):
                    handler.handle(printable_record(record))
        outlet.flush()
    outlet.close()


def _take_collected(bell: Bell, logs: Logs, outlet: Outlet) -> None:
    bell.has_rung = False  # first: a line that comes now rings once more
    if access := logs.access.take():
        outlet.access(access)
    if ts_metrics := logs.ts_metrics.take():
        outlet.metrics("ts_metrics", ts_metrics)
    if model_metrics := logs.model_metrics.take():
        outlet.metrics("model_metrics", model_metrics)


def printable_record(record: logging.LogRecord) -> logging.LogRecord:
    """Ready for any formatter: no control characters, and the name that log readers know."""
    if record.levelno == logging.WARNING:
        record.levelname = "WARN"
    record.name = TORCHSERVE_NAMES.get(record.name, record.name)
    record.msg, record.args = printable(record.getMessage()), None
    return record


class _Formatter(logging.Formatter):
    def __init__(self) -> None:
        super().__init__("%(asctime)s [%(levelname)-5s] %(threadName)s %(name)s - %(message)s")

    def formatTime(self, record: logging.LogRecord, datefmt: str | None = None) -> str:
        """Local time to the millisecond."""
        return f"{stamp(int(record.created))},{int(record.msecs):03d}"


_FORMATTER = _Formatter()


class DroppingHandler(QueueHandler):
    """Where the queue is full, lines are counted instead of queued; the next one tells."""

    queue: Queue

    def __init__(self, lines: Queue, target: logging.Handler | None = None) -> None:
        super().__init__(lines)
        self.target = target  # of a user's configuration, run by the writer's thread
        if target is not None:
            self.setLevel(target.level)
        self._dropped = 0

    def prepare(self, record: logging.LogRecord) -> Any:
        prepared = super().prepare(record)
        is_of_worker = record.name in (MODEL, WORKER)
        if is_of_worker and isinstance(record.args, tuple) and len(record.args) == 2:
            # TorchServe: the worker, or its pipe, stands where the thread is named.
            prepared.threadName, prepared.msg = record.args
        return prepared

    def enqueue(self, record: logging.LogRecord) -> None:
        # Called under the handler's lock, so the count needs none of its own.
        if self.queue.qsize() >= _MAX_QUEUED:
            self._dropped += 1
            return
        if self._dropped:
            record.msg = f"({self._dropped} lines before this one were dropped) {record.msg}"
            self._dropped = 0
        self.queue.put(record if self.target is None else Routed(record, self.target))
