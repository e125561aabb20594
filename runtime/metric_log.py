"""Metrics as lines of a log, in TorchServe's format, for whoever reads them from files.

    2024-05-30T21:46:03,625 - QueueTime.Milliseconds:0.0|#Level:Host|#hostname:vm,timestamp:...

There are several for each request. So the event loop only notes what was measured, and the
thread that writes the logs spells it out.
"""

import math
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from torchkeep.runtime.log_text import Bell, printable, stamp

_MAX_NOTED = 50_000  # lines
_MAX_KNOWN = 10_000  # sets of labels of one metric: names of workers only grow

Record: TypeAlias = Callable[[tuple[str, ...], float], None]


@dataclass(slots=True)
class Series:
    """One metric with its labels, spelled out but for value and time."""

    head: str
    tail: str


def series(name: str, unit: str, label_names: Sequence[str], labels: Sequence[str]) -> Series:
    """TorchServe: the last label is the host, which has a place of its own in the line."""
    pairs = zip(label_names[:-1], labels[:-1], strict=True)
    text = ",".join(f"{label_name}:{label}" for label_name, label in pairs)
    head, tail = f"{name}.{unit}:", f"|#{text}|#hostname:{labels[-1]},"
    return Series(_one_line(head), _one_line(tail))


class MetricLog:
    """Filled by the event loop, emptied by the writer: each of their steps is atomic."""

    def __init__(self, bell: Bell, has_request_ids: bool = False) -> None:
        self._bell = bell
        self._has_request_ids = has_request_ids
        self._noted: deque[tuple[float, Series, float, str]] = deque()
        self._dropped = 0

    def add(self, of: Series, value: float, request_id: str = "") -> None:
        if len(self._noted) >= _MAX_NOTED:
            self._dropped += 1
            return
        self._noted.append((time.time(), of, value, request_id))
        if not self._bell.has_rung:
            self._bell.ring()

    def recorder(self, spell: Callable[[tuple[str, ...]], Series]) -> Record:
        """Adds values by their labels; what `spell` says of these is remembered.

        A closure, and without a call of `add`: it runs several times for each request.
        """
        known: dict[tuple[str, ...], Series] = {}
        noted, bell, now = self._noted, self._bell, time.time

        def record(labels: tuple[str, ...], value: float) -> None:
            of = known.get(labels)
            if of is None:
                if len(known) >= _MAX_KNOWN:
                    known.clear()
                of = known[labels] = spell(labels)
            if len(noted) >= _MAX_NOTED:
                self._dropped += 1
                return
            noted.append((now(), of, value, ""))
            if not bell.has_rung:
                bell.ring()

        return record

    def take(self) -> str:
        """Every line so far, from the writer's thread."""
        lines = []
        last_ms, before, after = -1, "", ""
        for now, of, value, request_id in self._taken():
            ms = int(now * 1000)
            if ms != last_ms:  # many lines share one
                last_ms = ms
                second, rest = divmod(ms, 1000)
                before = f"{stamp(second)},{rest:03d} - "
                after = f"timestamp:{second}\n"
            # Most are small whole numbers, and those are spelled fast.
            number = f"{value}.0" if type(value) is int and value < 10**7 else java_double(value)
            if self._has_request_ids:
                # TorchServe: what belongs to no request says null
                ids = f"requestID:{_one_line(request_id) or 'null'},"
                lines.append(f"{before}{of.head}{number}{of.tail}{ids}{after}")
            else:
                lines.append(f"{before}{of.head}{number}{of.tail}{after}")
        if self._dropped:
            lines.append(f"{before}({self._dropped} lines after these were dropped)\n")
            self._dropped = 0
        return "".join(lines)

    def _taken(self) -> list[tuple[float, Series, float, str]]:
        noted = self._noted
        return [noted.popleft() for _ in range(len(noted))]


def java_double(value: float) -> str:
    """A number as Java spells it: `3.0`, `1.0E7`, `1.0E-4`."""
    if 1e-3 <= value < 1e7 or value == 0:
        return repr(float(value))
    if math.isnan(value):
        return "NaN"
    if math.isinf(value):
        return "+Inf" if value > 0 else "-Inf"
    if 1e-3 <= -value < 1e7:
        return repr(float(value))
    # `repr` has the fewest digits that mean this number; only where the point goes differs.
    sign, number = ("-", repr(-float(value))) if value < 0 else ("", repr(float(value)))
    digits, _, exponent = number.partition("e")
    whole, _, fraction = digits.partition(".")
    fraction = "" if fraction == "0" else fraction
    power = int(exponent or 0) + len(whole) - 1
    all_digits = whole + fraction
    significant = all_digits.lstrip("0")
    power -= len(all_digits) - len(significant)
    rest = significant[1:].rstrip("0") or "0"
    return f"{sign}{significant[0]}.{rest}E{power}"


def _one_line(text: str) -> str:
    return text if text.isprintable() else printable(text).replace("\n", "\\n")
