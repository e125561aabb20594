"""How many threads each worker computes with, and on which cores.

OpenMP threads that share a core wait for each other: one prediction of a small network then
takes ten times as long. So the threads of a version's workers never exceed the cores, and
each worker has cores of its own while all loaded workers fit.
"""

import logging
import os
from contextlib import suppress

from torchkeep.runtime.cores import Cores

log = logging.getLogger(__name__)


class ThreadPlan:
    """Decides when a worker starts, pins when it has loaded, forgets when it ends."""

    def __init__(self, cores: Cores, fixed_threads: int | None = None, pins: bool = True) -> None:
        self.cores = cores
        self.fixed_threads = fixed_threads  # what the user decided: it wins
        self.pins = pins and cores.are_ours_alone
        self._workers: dict[int, int] = {}  # pid -> threads, of loaded workers
        self._pinned: dict[int, tuple[int, ...]] = {}  # pid -> processors

    def threads(self, max_workers: int) -> int:
        """Threads of each worker of a version that has so many of them."""
        return self.fixed_threads or max(1, self.cores.count // max(1, max_workers))

    def admit(self, pid: int, threads: int) -> None:
        """A worker has loaded and computes with so many threads."""
        self._workers[pid] = threads
        self._repin()

    def dismiss(self, pid: int) -> None:
        """A worker is about to end; its process still exists."""
        if self._workers.pop(pid, None) is not None:
            self._pinned.pop(pid, None)
            self._repin()

    def pinned(self, pid: int) -> tuple[int, ...]:
        """The processors of a worker; none while it runs wherever the kernel likes."""
        return self._pinned.get(pid, ())

    def describe(self, workers: int) -> str:
        """The plan for a version with so many workers, in a sentence."""
        threads = self.threads(workers)
        wanted = workers * threads
        room = self.cores.count
        text = f"{_many(workers, 'worker')} of {_many(threads, 'thread')} on {_many(room, 'core')}"
        if not self.pins:
            return f"{text}, not pinned"
        return f"{text}, pinned" if wanted <= room else f"{text}, not pinned (more than the cores)"

    def _repin(self) -> None:
        if not self.pins or sum(self._workers.values()) > len(self.cores.cpus):
            for pid in self._pinned:
                _set_affinity(pid, self.cores.logical)
            self._pinned = {}
            return
        taken = {cpu for cpus in self._pinned.values() for cpu in cpus}
        free = [cpu for cpu in self.cores.cpus if cpu not in taken]
        for pid, threads in self._workers.items():
            if pid not in self._pinned:
                self._pinned[pid], free = tuple(free[:threads]), free[threads:]
                _set_affinity(pid, self._pinned[pid])


def _set_affinity(pid: int, cpus: tuple[int, ...]) -> None:
    """Move every thread of a process; those it starts later inherit."""
    moved: set[str] = set()
    while True:
        try:
            threads = set(os.listdir(f"/proc/{pid}/task")) - moved
        except FileNotFoundError:
            return
        if not threads:
            return
        for thread in threads:
            with suppress(ProcessLookupError):
                os.sched_setaffinity(int(thread), cpus)
        moved |= threads


def _many(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"
