"""Which processors this process may use: affinity, cgroup limits, SMT siblings counted once.

Two threads of one core share its arithmetic units, so a model gains nothing from the second;
and a container that may use two processors' worth of time must not start sixteen threads,
however many `os.cpu_count()` names. Sources: sysfs `cpu/cpuN/topology`, and the cgroup files
`cpu.max` (v2) and `cpu.cfs_quota_us` (v1) of the kernel's admin guide.
"""

import math
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Cores:
    """The processors of this machine that are ours to use."""

    cpus: tuple[int, ...]  # one processor number per physical core
    logical: tuple[int, ...]  # all processor numbers, siblings included
    limit: float | None = None  # of the cgroup, in processors' worth of time

    @property
    def count(self) -> int:
        """Cores that may compute at once; at least one."""
        if self.limit is None:
            return len(self.cpus)
        return max(1, min(len(self.cpus), math.floor(self.limit)))

    @property
    def logical_count(self) -> int:
        """Processors, as TorchServe counts them for its default number of workers."""
        if self.limit is None:
            return len(self.logical)
        return max(1, min(len(self.logical), math.ceil(self.limit)))

    @property
    def are_ours_alone(self) -> bool:
        """False under a time limit: then others compute on these processors as well."""
        return self.limit is None or self.limit >= len(self.logical)


def usable_cores(
    affinity: Iterable[int] | None = None,
    sys_root: Path = Path("/sys"),
    proc_root: Path = Path("/proc"),
) -> Cores:
    """What the kernel grants this process at this moment."""
    logical = sorted(os.sched_getaffinity(0) if affinity is None else affinity)
    cpus, seen = [], set[int]()
    for cpu in logical:
        if cpu not in seen:
            cpus.append(cpu)
            seen |= _siblings(cpu, sys_root)
    return Cores(tuple(cpus), tuple(logical), _cgroup_limit(sys_root, proc_root))


def threads_of_environment(environ: Mapping[str, str]) -> int | None:
    """What OMP_NUM_THREADS asks for: its first number, as OpenMP reads a list of levels."""
    first = environ.get("OMP_NUM_THREADS", "").partition(",")[0].strip()
    return int(first) if first.isascii() and first.isdigit() and int(first) > 0 else None


def cpu_flags(proc_root: Path = Path("/proc")) -> frozenset[str]:
    """The instruction sets that Linux names for this processor; none where it names none."""
    try:
        lines = (proc_root / "cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return frozenset()
    for line in lines:
        name, _, flags = line.partition(":")
        if name.strip() in ("flags", "Features"):  # the second: Arm
            return frozenset(flags.split())
    return frozenset()


def parse_cpu_list(text: str) -> set[int]:
    """The numbers of a kernel list such as `0-3,8`. Raises ValueError."""
    cpus: set[int] = set()
    for part in filter(None, text.strip().split(",")):
        first, dash, last = part.partition("-")
        cpus.update(range(int(first), int(last if dash else first) + 1))
    return cpus


def _siblings(cpu: int, sys_root: Path) -> set[int]:
    """The processors that share a core with this one, itself included."""
    topology = sys_root / "devices/system/cpu" / f"cpu{cpu}" / "topology"
    for name in ("core_cpus_list", "thread_siblings_list"):  # the second: before Linux 5.3
        try:
            return parse_cpu_list((topology / name).read_text()) | {cpu}
        except (OSError, ValueError):
            continue
    return {cpu}


def _cgroup_limit(sys_root: Path, proc_root: Path) -> float | None:
    """The tightest limit from our cgroup up to the root, in processors; None without one."""
    return min(_limits(sys_root / "fs/cgroup", proc_root), default=None)


def _limits(cgroups: Path, proc_root: Path) -> Iterator[float]:
    try:
        lines = (proc_root / "self/cgroup").read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if not controllers:
            mount = cgroups
        elif "cpu" in controllers.split(","):
            mount = next(filter(Path.is_dir, (cgroups / controllers, cgroups / "cpu")), cgroups)
        else:
            continue
        # In a container the path may be the host's, of which only the mount itself is seen.
        place = mount / path.lstrip("/")
        for directory in (place, *place.parents):
            if directory.is_relative_to(mount) and (limit := _read_limit(directory)):
                yield limit


def _read_limit(directory: Path) -> float | None:
    try:
        if (v2 := directory / "cpu.max").exists():
            quota, period = v2.read_text().split()
        else:
            quota = (directory / "cpu.cfs_quota_us").read_text()
            period = (directory / "cpu.cfs_period_us").read_text()
        return int(quota) / int(period) if int(quota) > 0 else None
    except (OSError, ValueError, ZeroDivisionError):
        return None  # "max", -1, or no such controller here
