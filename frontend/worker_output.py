"""What a worker process prints, line by line into the model log."""

import asyncio
import logging
import os
import re
from collections.abc import Callable
from contextlib import suppress
from time import thread_time

from torchkeep.frontend.handler_log import HandlerLog
from torchkeep.frontend.metric_lines import is_metric_line, parse_metric_line
from torchkeep.frontend.output_pace import OutputPace
from torchkeep.runtime.messages import Metric

MODEL_LOG = logging.getLogger("torchkeep.model")
WORKER_LOG = logging.getLogger("torchkeep.worker")  # its name comes first in each line

# Little at a time: a worker that floods us must not keep the loop from everybody else.
_READ_BYTES = 4096
_TURN_LINES = 32
_MAX_LINE_BYTES = 8192
# What may be left at the end. A pipe holds no more, unless a process that the worker left
# behind goes on writing; and of all that, the last lines are those that say what happened.
_LEFT_BYTES = 1 << 16
_LEFT_LINES = 200
# A handler's print must not move the cursor of whoever reads the log, nor forge lines in it.
_CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f-\x9f]")


def as_one_line(text: str) -> str:
    """What a worker says of itself, fit for a line of the log."""
    return _CONTROL.sub("?", text[:_MAX_LINE_BYTES])


class WorkerOutput:
    """Reads one pipe of a worker until it ends, at a pace; an over-long line becomes several."""

    def __init__(
        self,
        descriptor: int,
        level: int,
        source: str,
        memory: HandlerLog | None = None,
        on_metric: Callable[[Metric], None] | None = None,
        pace: OutputPace | None = None,
    ) -> None:
        os.set_blocking(descriptor, False)
        self._descriptor = descriptor
        self._level = level
        self._source = source
        self._memory = memory  # where the lines stay, instead of the server's log
        self._on_metric = on_metric  # gets those lines that are metrics
        self._pace = pace or OutputPace()
        self._rest = b""
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(descriptor, self._read)
        self._open = True

    def close(self) -> None:
        """Log the end of what is left and let go of the pipe."""
        if not self._open:
            return
        with suppress(BlockingIOError):
            while len(self._rest) < _LEFT_BYTES and (
                data := os.read(self._descriptor, _LEFT_BYTES)
            ):
                self._rest += data
        lines = self._rest.removesuffix(b"\n").split(b"\n")
        if len(lines) > _LEFT_LINES:
            self._log(b"(%d lines before the next were dropped)" % (len(lines) - _LEFT_LINES))
        self._rest = b"\n".join(lines[-_LEFT_LINES:])
        self._end()

    def _read(self) -> None:
        began = thread_time()
        if b"\n" not in self._rest:
            try:
                data = os.read(self._descriptor, _READ_BYTES)
            except BlockingIOError:
                return
            if not data:
                self._end()
                return
            self._rest += data
        *lines, self._rest = self._rest.split(b"\n", _TURN_LINES)
        for line in lines:
            self._log(line)
        has_more = b"\n" in self._rest
        if len(self._rest) > _MAX_LINE_BYTES and not has_more:
            self._log(self._rest[:_MAX_LINE_BYTES])
            self._rest = self._rest[_MAX_LINE_BYTES:]
        pause_s = self._pace.pause_s(thread_time() - began)
        if has_more or pause_s:
            self._loop.remove_reader(self._descriptor)
            self._loop.call_later(pause_s, self._go_on)

    def _go_on(self) -> None:
        if self._open:
            self._loop.add_reader(self._descriptor, self._read)
            if b"\n" in self._rest:
                self._read()

    def _log(self, line: bytes) -> None:
        if self._memory is None and not MODEL_LOG.isEnabledFor(self._level):
            return
        if len(line) > _MAX_LINE_BYTES:
            self._log(line[:_MAX_LINE_BYTES])
            self._log(line[_MAX_LINE_BYTES:])
            return
        text = _CONTROL.sub("?", line.decode("utf-8", "backslashreplace"))
        if self._memory is not None:
            self._memory.add(self._source, text)
        elif self._on_metric is not None and is_metric_line(line):
            self._take_metric(self._on_metric, text)
        else:
            MODEL_LOG.log(self._level, "%s %s", self._source, text)

    def _take_metric(self, on_metric: Callable[[Metric], None], text: str) -> None:
        metric = parse_metric_line(text)
        if metric is None:
            WORKER_LOG.error("%s %s", self._source, f'Failed to parse metrics line: "{text}".')
        else:
            on_metric(metric)

    def _end(self) -> None:
        if self._open:
            self._open = False
            self._loop.remove_reader(self._descriptor)
            os.close(self._descriptor)
            rest, self._rest = self._rest, b""
            for line in rest.split(b"\n") if rest else ():
                self._log(line)


class OutputPipes:
    """stdout and stderr of a process about to start: `with` gives the two ends it writes to.

    Afterwards `outputs` reads from them; where the block raised, nothing is left open.
    """

    def __init__(
        self,
        name: str,
        memory: HandlerLog | None = None,
        is_dropped: bool = False,
        on_metric: Callable[[Metric], None] | None = None,
        pace: OutputPace | None = None,
    ) -> None:
        self.outputs: list[WorkerOutput] = []
        self._name = name
        self._memory = memory
        self._is_dropped = is_dropped  # read, so that the process does not wait, and forgotten
        self._on_metric = on_metric
        self._pace = pace or OutputPace()

    def __enter__(self) -> tuple[int, int]:
        self._pipes = [os.pipe(), os.pipe()]
        return self._pipes[0][1], self._pipes[1][1]

    def __exit__(self, failure: type[BaseException] | None, *_: object) -> None:
        (stdout, stdout_write), (stderr, stderr_write) = self._pipes
        os.close(stdout_write)
        os.close(stderr_write)
        if failure is not None:
            os.close(stdout)
            os.close(stderr)
            return
        # No logger is ever enabled for NOTSET.
        levels = (logging.NOTSET,) * 2 if self._is_dropped else (logging.INFO, logging.WARNING)
        ends = zip((stdout, stderr), ("stdout", "stderr"), levels, strict=True)
        self.outputs = [
            WorkerOutput(
                end,
                level,
                f"{self._name}-{name}",
                self._memory,
                self._on_metric if name == "stdout" else None,
                self._pace,
            )
            for end, name, level in ends
        ]
