"""What the machine has to spare, read from the kernel at intervals.

TorchServe runs a script for it that needs psutil; the figures and their names are the same. The
host is meant, not the container, as TorchServe has it. A user's own script (`system_metrics_cmd`)
is run in its place.
"""

import asyncio
import logging
import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from torchkeep.frontend.metric_script import MetricScript
from torchkeep.frontend.metrics import Metrics

log = logging.getLogger(__name__)

_FIRST_CPU_S = 0.2  # what the first reading of the processors is about
_MB, _GB = 1 << 20, 1 << 30


class SystemMetrics:
    """Reads until the server stops."""

    def __init__(
        self,
        metrics: Metrics,
        interval_s: float,
        proc: Path = Path("/proc"),
        script: MetricScript | None = None,
    ) -> None:
        self._metrics = metrics
        self._script = script
        self._interval_s = interval_s
        self._proc = proc
        self._cpu = (0, 0)  # busy and all ticks, when last read

    async def run(self, stop: asyncio.Event) -> None:
        """A machine that does not tell its figures costs them, not the server."""
        try:
            await self._run(stop)
        except (OSError, LookupError, ValueError) as error:
            log.warning("system metrics cannot be read, and are not any more: %s", error)

    async def _run(self, stop: asyncio.Event) -> None:
        self._cpu = _cpu_ticks(self._proc)
        pause_s = _FIRST_CPU_S
        while not await _is_set_within(pause_s, stop):
            figures = self.read() if self._script is None else await self._script.read()
            for name, value in figures:
                self._metrics.system(name, value)
            pause_s = self._interval_s

    def read(self) -> Iterator[tuple[str, float]]:
        """Each figure by its name in TorchServe."""
        before, self._cpu = self._cpu, _cpu_ticks(self._proc)
        busy, ticks = self._cpu[0] - before[0], self._cpu[1] - before[1]
        yield "CPUUtilization", round(100 * busy / ticks, 1) if ticks > 0 else 0.0
        yield from _disk()
        yield from _memory(self._proc)


async def _is_set_within(seconds: float, event: asyncio.Event) -> bool:
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await event.wait()
    return event.is_set()


def _cpu_ticks(proc: Path) -> tuple[int, int]:
    with open(proc / "stat", encoding="ascii") as stat:
        # The two after these eight are contained in the first two.
        user, nice, system, idle, iowait, *others = map(int, stat.readline().split()[1:9])
    busy = user + nice + system + sum(others)
    return busy, busy + idle + iowait


def _disk() -> Iterator[tuple[str, float]]:
    status = os.statvfs("/")
    used = (status.f_blocks - status.f_bfree) * status.f_frsize
    available = status.f_bavail * status.f_frsize  # to others than root
    yield "DiskAvailable", available / _GB
    yield "DiskUsage", used / _GB
    yield "DiskUtilization", round(100 * used / max(1, used + available), 1)


def _memory(proc: Path) -> Iterator[tuple[str, float]]:
    with open(proc / "meminfo", encoding="ascii") as meminfo:
        sizes = {line.split(":")[0]: int(line.split()[1]) << 10 for line in meminfo}
    total, available = sizes["MemTotal"], sizes["MemAvailable"]
    caches = sizes["Buffers"] + sizes["Cached"] + sizes.get("SReclaimable", 0)
    yield "MemoryAvailable", available / _MB
    yield "MemoryUsed", (total - sizes["MemFree"] - caches) / _MB
    yield "MemoryUtilization", round(100 * (total - available) / total, 1)
