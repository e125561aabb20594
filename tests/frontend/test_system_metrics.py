"""The machine's figures, by TorchServe's names and as psutil counts them."""

import asyncio
from pathlib import Path

import psutil
import pytest

from torchkeep.frontend import system_metrics as module
from torchkeep.frontend.metrics import SYSTEM_METRICS, Metrics
from torchkeep.frontend.system_metrics import SystemMetrics

MEMINFO = """MemTotal:       1000 kB
MemFree:         300 kB
MemAvailable:    750 kB
Buffers:          50 kB
Cached:          200 kB
SReclaimable:     50 kB
"""


@pytest.fixture
def proc(tmp_path: Path) -> Path:
    (tmp_path / "stat").write_text("cpu  100 0 50 800 50 0 0 0 70 0\ncpu0 1 2 3\n")
    (tmp_path / "meminfo").write_text(MEMINFO)
    return tmp_path


def test_processors_are_those_since_the_last_reading(proc: Path) -> None:
    system = SystemMetrics(Metrics("vm"), 60, proc)
    assert dict(system.read())["CPUUtilization"] == 15.0  # since the machine started
    assert dict(system.read())["CPUUtilization"] == 0.0  # no tick later
    (proc / "stat").write_text("cpu  100 0 100 850 50 0 0 0 70 0\n")
    assert dict(system.read())["CPUUtilization"] == 50.0


def test_memory_as_the_kernel_tells_it(proc: Path) -> None:
    figures = dict(SystemMetrics(Metrics("vm"), 60, proc).read())
    assert figures["MemoryAvailable"] == 750 / 1024
    assert figures["MemoryUsed"] == 400 / 1024
    assert figures["MemoryUtilization"] == 25.0


def test_all_of_torchserves_figures_but_those_of_gpus() -> None:
    figures = dict(SystemMetrics(Metrics("vm"), 60).read())
    assert set(figures) == set(SYSTEM_METRICS)
    assert figures["DiskUtilization"] == pytest.approx(psutil.disk_usage("/").percent, abs=1)
    assert figures["MemoryUtilization"] == pytest.approx(psutil.virtual_memory().percent, abs=5)


def test_the_first_reading_comes_at_once_the_next_after_the_interval(
    proc: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_FIRST_CPU_S", 0)

    async def readings(interval_s: float, count: int) -> list[str]:
        stop, taken = asyncio.Event(), []

        class Noted(Metrics):
            def system(self, name: str, value: float) -> None:
                taken.append(name)
                if len(taken) == count * len(SYSTEM_METRICS):
                    stop.set()

        async with asyncio.timeout(30):
            await SystemMetrics(Noted("vm"), interval_s, proc).run(stop)
        return taken

    assert set(asyncio.run(readings(3600, 1))) == set(SYSTEM_METRICS)
    assert asyncio.run(readings(0.01, 3)).count("CPUUtilization") == 3


@pytest.mark.parametrize(("name", "text"), [("stat", None), ("stat", "cpu one"), ("meminfo", "")])
def test_a_machine_that_tells_nothing_costs_a_line(
    proc: Path,
    name: str,
    text: str | None,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(module, "_FIRST_CPU_S", 0)
    (proc / name).unlink()
    if text is not None:
        (proc / name).write_text(text)

    async def main() -> None:
        async with asyncio.timeout(30):
            await SystemMetrics(Metrics("vm"), 0.01, proc).run(asyncio.Event())

    asyncio.run(main())
    assert "system metrics cannot be read" in caplog.text
