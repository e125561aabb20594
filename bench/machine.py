"""What the figures were measured on: they mean nothing without it."""

import os
import platform
import subprocess
import time
from pathlib import Path

FEATURES = ("avx2", "avx512f", "avx512_bf16", "avx512_vnni", "amx_tile")
VERSIONS = (
    "import platform; from importlib.metadata import version;"
    " print('Python', platform.python_version(), 'torch', version('torch'))"
)


def describe(root: Path, our_python: Path, reference_python: Path | None = None) -> dict[str, str]:
    """Names and values for people, in the order to print them."""
    cpu = _fields(Path("/proc/cpuinfo"))
    memory_kb = int(_fields(Path("/proc/meminfo"))["MemTotal"].split()[0])
    flags = cpu.get("flags", "").split()
    described = {
        "Date": time.strftime("%Y-%m-%d %H:%M"),
        "Processor": cpu.get("model name", platform.machine()),
        "Cores": f"{len(os.sched_getaffinity(0))}, with {', '.join(_present(flags))}",
        "Memory": f"{memory_kb / 1e6:.0f} GB",
        "System": f"{platform.system()} {platform.release()}",
        "Load before": " ".join(f"{load:.1f}" for load in os.getloadavg()),
        "Torchkeep": f"{_commit(root)}, {_runtime(our_python)}",
    }
    if reference_python is not None:
        described["TorchServe"] = f"0.12.0, {_runtime(reference_python)}"
    return described


def _present(flags: list[str]) -> list[str]:
    return [name for name in FEATURES if name in flags] or ["none of the features we know"]


def _fields(path: Path) -> dict[str, str]:
    """`name: value` lines; of a repeated name the first."""
    fields: dict[str, str] = {}
    for line in path.read_text().splitlines():
        name, separator, value = line.partition(":")
        if separator:
            fields.setdefault(name.strip(), value.strip())
    return fields


def _commit(root: Path) -> str:
    run = subprocess.run(
        ["git", "describe", "--always", "--dirty"], cwd=root, capture_output=True, text=True
    )
    return f"commit {run.stdout.strip()}" if run.returncode == 0 else "no git commit"


def _runtime(python: Path) -> str:
    run = subprocess.run([str(python), "-c", VERSIONS], capture_output=True, text=True)
    return run.stdout.strip() if run.returncode == 0 else "no torch"
