"""`cpu_launcher_args` of TorchServe, read as settings of the thread plan.

TorchServe passes them to `torch.backends.xeon.run_cpu`, whose options these are (PyTorch's
documentation of that script). Here workers are forks, so there is nothing to launch: what
an option means for cores, threads and the allocator is done, and what is left is named.
"""

import shlex
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from torchkeep.runtime.cores import Cores, parse_cpu_list

Allocator = Literal["", "jemalloc", "tcmalloc", "default"]


@dataclass(frozen=True, slots=True)
class LauncherSettings:
    """What the arguments ask for."""

    threads: int | None = None  # of each worker
    cpus: tuple[int, ...] | None = None  # to use, of those we have
    node: int | None = None  # NUMA node whose processors to use
    uses_siblings: bool = False  # SMT siblings count as cores
    pins: bool = True
    allocator: Allocator = ""
    without_effect: tuple[str, ...] = ()


def parse_launcher_args(text: str) -> LauncherSettings:
    """Raises ValueError for a value that is not of its option's kind."""
    settings = LauncherSettings()
    for name, value in _options(text):
        match name:
            case "ncores-per-instance":
                # TorchServe's own documentation writes -1 for "decide yourself".
                number = _number(name, value)
                settings = replace(settings, threads=number if number > 0 else None)
            case "core-list":
                settings = replace(settings, cpus=_cpus(name, value))
            case "node-id":
                number = _number(name, value)
                settings = replace(settings, node=number if number >= 0 else None)
            case "use-logical-core":
                settings = replace(settings, uses_siblings=True)
            case "disable-taskset":
                settings = replace(settings, pins=False)
            case "enable-jemalloc":
                settings = replace(settings, allocator="jemalloc")
            case "enable-tcmalloc":
                settings = replace(settings, allocator="tcmalloc")
            case "use-default-allocator":
                settings = replace(settings, allocator="default")
            case _:
                settings = replace(settings, without_effect=(*settings.without_effect, name))
    return settings


def restrict(cores: Cores, settings: LauncherSettings, sys_root: Path = Path("/sys")) -> Cores:
    """The cores that the arguments leave. Raises ValueError if they leave none."""
    chosen = set(cores.logical)
    if settings.cpus is not None:
        chosen &= set(settings.cpus)
    if settings.node is not None:
        path = sys_root / f"devices/system/node/node{settings.node}/cpulist"
        try:
            chosen &= parse_cpu_list(path.read_text())
        except OSError as error:
            raise ValueError(f"node-id: this machine has no node {settings.node}") from error
    if not chosen:
        raise ValueError(f"none of the processors it names is among ours, {list(cores.logical)}")
    logical = tuple(cpu for cpu in cores.logical if cpu in chosen)
    # A list may name the siblings of the processors we would have chosen.
    cpus = logical if settings.uses_siblings else _one_per_core(cores, logical)
    return Cores(cpus, logical, cores.limit)


def _one_per_core(cores: Cores, logical: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(cpu for cpu in logical if cpu in cores.cpus) or logical


def _options(text: str) -> Iterator[tuple[str, str]]:
    """Names without dashes and with hyphens, each with its value, which may be empty."""
    words = shlex.split(text)
    while words:
        word = words.pop(0)
        name, equals, value = word.partition("=")
        if not equals:
            taken: list[str] = []
            while words and not words[0].startswith("--"):
                taken.append(words.pop(0))  # a core list may be spaced
            value = " ".join(taken)
        yield name.lstrip("-").replace("_", "-"), value


def _number(name: str, value: str) -> int:
    try:
        return int(value)
    except ValueError:
        raise ValueError(f"{name} takes a number, not {value!r}") from None


def _cpus(name: str, value: str) -> tuple[int, ...]:
    try:
        cpus = parse_cpu_list(",".join(value.replace(",", " ").split()))
    except ValueError:
        raise ValueError(f"{name} takes processor numbers such as 0-3,8, not {value!r}") from None
    return tuple(sorted(cpus))
