"""`torchkeep doctor`: how models will be computed on this machine, and what to change, in words."""

from collections.abc import Iterator
from pathlib import Path

from torchkeep.runtime.compute import Compute
from torchkeep.runtime.cores import cpu_flags

# From the best: what the flag means for a model.
_INSTRUCTION_SETS = (
    ("amx_bf16", "AMX with bfloat16"),
    ("avx512_bf16", "AVX-512 with bfloat16"),
    ("avx512_vnni", "AVX-512 with VNNI"),
    ("avx512f", "AVX-512"),
    ("avx2", "AVX2"),
    ("asimd", "NEON"),
)
_WHOLE = 0.05  # of a processor: a limit this near to a whole number wastes nothing


def examine(compute: Compute, layers: str, plan: str, workers: int, proc: Path) -> Iterator[str]:
    """The report, line by line. `plan` is for a model that asks for no number of workers."""
    cores = compute.cores
    limit = "no limit" if cores.limit is None else f"limited to {cores.limit:g} by the cgroup"
    yield f"Processor   {_model_name(proc)}, {instruction_set(proc)}"
    yield f"Cores       {cores.count} to compute on, {len(cores.logical)} processors, {limit}"
    yield f"Memory      {_memory(proc)}"
    yield f"Allocator   {compute.allocator}" + (
        f" ({compute.allocator_library})" if compute.allocator_library else ""
    )
    yield f"Engine      {compute.engine}"
    yield f"Sandbox     {layers}"
    yield f"Plan        {plan}"
    advice = [*compute.warnings, *_advice(compute, workers, proc)]
    yield "To change   " + (advice[0] if advice else "nothing")
    for line in advice[1:]:
        yield f"            {line}"


def instruction_set(proc: Path) -> str:
    """The best of this processor for a model, in words."""
    flags = cpu_flags(proc)
    return next((words for flag, words in _INSTRUCTION_SETS if flag in flags), "no vector unit")


def _advice(compute: Compute, workers: int, proc: Path) -> Iterator[str]:
    cores = compute.cores
    if compute.allocator == "glibc":
        yield "Install jemalloc, so that freed memory is given back: apt-get install libjemalloc2"
    if not compute.torch:
        yield "Install torch: pip install 'torchkeep[ipex]' (x86-64 Linux) or 'torchkeep[torch]'"
    elif not compute.ipex and "avx2" in cpu_flags(proc):
        yield "IPEX may be faster for eager models: pip install 'torchkeep[ipex]'"
    threads = compute.fixed_threads
    if threads and threads * workers > cores.count:
        yield (
            f"{workers} workers of {threads} threads wait for each other on {cores.count} cores:"
            " lower OMP_NUM_THREADS (or --ncores-per-instance), or the number of workers"
        )
    elif workers > cores.count:
        yield (
            f"{workers} workers share {cores.count} cores: default_workers_per_model="
            f"{cores.count} answers as many requests, each sooner"
        )
    if cores.limit is not None and cores.limit < 1:
        yield f"Less than one processor ({cores.limit:g}): raise the CPU limit of the container"
    elif cores.limit is not None and cores.limit - int(cores.limit) > _WHOLE:
        yield (
            f"A CPU limit of {cores.limit:g} leaves part of a processor idle:"
            f" {int(cores.limit)} or {int(cores.limit) + 1} does not"
        )


def _model_name(proc: Path) -> str:
    return _field(proc / "cpuinfo", "model name") or "unknown processor"


def _memory(proc: Path) -> str:
    total, available = (
        int((_field(proc / "meminfo", name) or "0").split()[0]) / 2**20
        for name in ("MemTotal", "MemAvailable")
    )
    return f"{total:.1f} GiB, {available:.1f} GiB available"


def _field(path: Path, name: str) -> str:
    try:
        lines = path.read_text().splitlines()
    except OSError:
        return ""
    for line in lines:
        key, _, value = line.partition(":")
        if key.strip() == name:
            return value.strip()
    return ""
