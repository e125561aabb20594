"""What /proc says about a process, and what a server's command line is made of."""

import os

import pytest

from bench.servers import cpu_ticks, free_ports, private_memory_mb, with_python_path


def test_private_memory_grows_by_what_is_written() -> None:
    before = private_memory_mb(os.getpid())
    block = bytearray(os.urandom(1 << 20)) * 64
    grown_mb = private_memory_mb(os.getpid()) - before
    assert len(block) / 1e6 * 0.9 < grown_mb < len(block) / 1e6 * 1.5


def test_processor_time_counts_work() -> None:
    before = cpu_ticks(os.getpid())
    while cpu_ticks(os.getpid()) <= before:
        sum(range(100_000))


def test_free_ports_differ() -> None:
    assert len(set(free_ports(5))) == 5


@pytest.mark.parametrize(
    ("directory", "inherited", "path"),
    [("", "", ""), ("a", "", "a"), ("", "b:c", "b:c"), ("a", "b:c", "a:b:c")],
)
def test_python_path_keeps_what_was_there(
    monkeypatch: pytest.MonkeyPatch, directory: str, inherited: str, path: str
) -> None:
    monkeypatch.setenv("PYTHONPATH", inherited)
    assert with_python_path(directory) == path
