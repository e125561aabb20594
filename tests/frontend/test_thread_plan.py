"""Threads and cores of workers, with real processes to pin."""

import os
import subprocess
import sys
from collections.abc import Iterator

import pytest

from torchkeep.frontend.thread_plan import ThreadPlan
from torchkeep.runtime.cores import Cores, usable_cores

SLEEPER = """
import threading, time
threading.Thread(target=time.sleep, args=(60,), daemon=True).start()
print("ready", flush=True)
time.sleep(60)
"""


@pytest.fixture
def workers() -> Iterator[list[int]]:
    """Three processes of two threads."""
    command = [sys.executable, "-c", SLEEPER]
    processes = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    try:
        for process in processes:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
        yield [process.pid for process in processes]
    finally:
        for process in processes:
            process.kill()
            process.communicate()


def affinities(pid: int) -> set[tuple[int, ...]]:
    """Of every thread."""
    threads = [int(name) for name in os.listdir(f"/proc/{pid}/task")]
    return {tuple(sorted(os.sched_getaffinity(thread))) for thread in threads}


@pytest.mark.parametrize(
    ("cores", "max_workers", "threads"),
    [(8, 1, 8), (8, 2, 4), (8, 3, 2), (8, 8, 1), (8, 9, 1), (1, 1, 1), (8, 0, 8)],
)
def test_threads_of_all_workers_never_exceed_the_cores(
    cores: int, max_workers: int, threads: int
) -> None:
    plan = ThreadPlan(Cores(tuple(range(cores)), tuple(range(cores))))
    assert plan.threads(max_workers) == threads


def test_what_the_user_decided_wins() -> None:
    assert ThreadPlan(Cores((0, 1), (0, 1)), fixed_threads=5).threads(2) == 5


def test_loaded_workers_have_cores_of_their_own_while_they_fit(workers: list[int]) -> None:
    cores = usable_cores()
    if len(cores.cpus) < 2 or not cores.are_ours_alone:
        pytest.skip("needs two cores of its own")
    cores = Cores(cores.cpus[:2], cores.logical)
    plan = ThreadPlan(cores)
    first, second, third = workers
    everywhere = {cores.logical}
    plan.admit(first, 1)
    plan.admit(second, 1)
    assert affinities(first) == {(cores.cpus[0],)}
    assert affinities(second) == {(cores.cpus[1],)}
    assert plan.pinned(second) == (cores.cpus[1],)
    plan.admit(third, 1)  # one too many: the kernel places all of them
    assert affinities(first) == affinities(second) == affinities(third) == everywhere
    assert plan.pinned(second) == ()
    plan.dismiss(first)
    assert {*affinities(second), *affinities(third)} == {(cpu,) for cpu in cores.cpus}
    plan.dismiss(first)  # twice is once
    plan.dismiss(second)
    plan.admit(first, 2)  # more than is free
    assert affinities(first) == affinities(third) == everywhere


def test_a_worker_that_has_ended_is_no_error() -> None:
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        process.wait()
    plan = ThreadPlan(usable_cores())
    plan.admit(process.pid, 1)
    plan.dismiss(process.pid)


def test_nothing_is_pinned_under_a_time_limit(workers: list[int]) -> None:
    cores = usable_cores()
    before = affinities(workers[0])
    plan = ThreadPlan(Cores(cores.cpus, cores.logical, limit=0.5))
    plan.admit(workers[0], 1)
    assert affinities(workers[0]) == before
    assert plan.pinned(workers[0]) == ()


def test_the_plan_in_words() -> None:
    plan = ThreadPlan(Cores((0, 1), (0, 1)))
    assert plan.describe(1) == "1 worker of 2 threads on 2 cores, pinned"
    assert plan.describe(2) == "2 workers of 1 thread on 2 cores, pinned"
    assert plan.describe(3) == (
        "3 workers of 1 thread on 2 cores, not pinned (more than the cores)"
    )
    limited = ThreadPlan(Cores((0, 1, 2), (0, 1, 2), 2.5))
    assert limited.describe(2) == "2 workers of 1 thread on 2 cores, not pinned"
