"""The processors that are ours, from copies of the kernel's files."""

from pathlib import Path

import pytest

from torchkeep.runtime.cores import Cores, parse_cpu_list, threads_of_environment, usable_cores


class Machine:
    """A /sys and a /proc with only what is read."""

    def __init__(self, root: Path) -> None:
        self.sys = root / "sys"
        self.proc = root / "proc"
        self.write(self.proc / "self/cgroup", "0::/\n")
        (self.sys / "fs/cgroup").mkdir(parents=True)

    def write(self, path: Path, text: str) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    def siblings(self, *groups: str, name: str = "core_cpus_list") -> None:
        for group in groups:
            for cpu in parse_cpu_list(group):
                self.write(self.sys / f"devices/system/cpu/cpu{cpu}/topology/{name}", f"{group}\n")

    def cores(self, *affinity: int) -> Cores:
        return usable_cores(affinity, self.sys, self.proc)


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def test_this_machine_has_a_core() -> None:
    assert usable_cores().count >= 1


def test_siblings_of_a_core_count_once(machine: Machine) -> None:
    machine.siblings("0,4", "1,5")
    cores = machine.cores(0, 1, 4, 5)
    assert (cores.cpus, cores.logical) == ((0, 1), (0, 1, 4, 5))
    assert (cores.count, cores.logical_count) == (2, 4)


def test_a_sibling_outside_our_affinity_does_not_hide_ours(machine: Machine) -> None:
    machine.siblings("0,4", name="thread_siblings_list")
    assert machine.cores(4).cpus == (4,)


def test_without_topology_each_processor_is_a_core(machine: Machine) -> None:
    assert machine.cores(2, 3).cpus == (2, 3)


@pytest.mark.parametrize(
    ("quota", "limit", "count", "logical_count"),
    [
        ("max 100000", None, 4, 4),
        ("200000 100000", 2.0, 2, 2),
        ("250000 100000", 2.5, 2, 3),
        ("50000 100000", 0.5, 1, 1),
        ("800000 100000", 8.0, 4, 4),
        ("nonsense", None, 4, 4),
    ],
)
def test_limit_of_cgroup_v2(
    machine: Machine, quota: str, limit: float | None, count: int, logical_count: int
) -> None:
    machine.write(machine.sys / "fs/cgroup/cpu.max", f"{quota}\n")
    cores = machine.cores(0, 1, 2, 3)
    assert (cores.limit, cores.count, cores.logical_count) == (limit, count, logical_count)
    assert cores.are_ours_alone == (limit is None or limit >= 4)


def test_the_tightest_limit_up_to_the_root_counts(machine: Machine) -> None:
    machine.write(machine.proc / "self/cgroup", "0::/pod/container\n")
    machine.write(machine.sys / "fs/cgroup/pod/cpu.max", "100000 100000\n")
    machine.write(machine.sys / "fs/cgroup/pod/container/cpu.max", "300000 100000\n")
    assert machine.cores(0, 1, 2, 3).limit == 1.0


def test_limit_of_cgroup_v1(machine: Machine) -> None:
    machine.write(machine.proc / "self/cgroup", "5:memory:/x\n4:cpu,cpuacct:/x\n")
    directory = machine.sys / "fs/cgroup/cpu,cpuacct/x"
    machine.write(directory / "cpu.cfs_quota_us", "150000\n")
    machine.write(directory / "cpu.cfs_period_us", "100000\n")
    assert machine.cores(0, 1, 2, 3).limit == 1.5
    machine.write(directory / "cpu.cfs_quota_us", "-1\n")
    assert machine.cores(0, 1, 2, 3).limit is None


def test_a_path_of_the_host_is_looked_up_at_the_mount(machine: Machine) -> None:
    machine.write(machine.proc / "self/cgroup", "0::/kubepods/burstable/pod1\n")
    machine.write(machine.sys / "fs/cgroup/cpu.max", "200000 100000\n")
    assert machine.cores(0, 1, 2, 3).limit == 2.0


@pytest.mark.parametrize(
    ("text", "cpus"), [("", set()), ("3", {3}), ("0-2,8", {0, 1, 2, 8}), ("0-0\n", {0})]
)
def test_cpu_lists(text: str, cpus: set[int]) -> None:
    assert parse_cpu_list(text) == cpus


@pytest.mark.parametrize(
    ("value", "threads"),
    [(None, None), ("4", 4), ("4,2", 4), ("", None), ("0", None), ("-1", None), ("many", None)],
)
def test_omp_num_threads(value: str | None, threads: int | None) -> None:
    environ = {} if value is None else {"OMP_NUM_THREADS": value}
    assert threads_of_environment(environ) == threads
