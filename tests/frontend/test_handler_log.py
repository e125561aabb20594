"""A model's output in memory: bounded, the newest kept, and no file of any name."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from torchkeep.frontend.handler_log import MAX_BYTES, HandlerLog


@pytest.fixture
def handler_log() -> Iterator[HandlerLog]:
    log = HandlerLog("M-m_1.0")
    yield log
    log.close()


def content(log: HandlerLog) -> str:
    return os.pread(log.descriptor, 2 * MAX_BYTES, 0).decode()


def test_lines_are_kept_with_their_source(handler_log: HandlerLog) -> None:
    handler_log.add("W-1-stdout", "one")
    handler_log.add("W-2-stderr", "two")
    assert content(handler_log) == "W-1-stdout one\nW-2-stderr two\n"


def test_the_oldest_lines_make_room(handler_log: HandlerLog) -> None:
    for number in range(3 * MAX_BYTES // 100):
        handler_log.add("W", f"{number:05} {'x' * 90}")
    kept = content(handler_log)
    assert MAX_BYTES // 3 < len(kept) <= MAX_BYTES
    lines = kept.splitlines()
    assert all(line.startswith("W 0") and len(line) == 98 for line in lines)
    assert lines[-1].startswith(f"W {3 * MAX_BYTES // 100 - 1:05}")


def test_a_line_longer_than_all_is_cut(handler_log: HandlerLog) -> None:
    handler_log.add("W", "x" * 2 * MAX_BYTES)
    assert len(content(handler_log)) <= MAX_BYTES


def test_it_has_no_path_but_the_descriptors(handler_log: HandlerLog) -> None:
    link = os.readlink(f"/proc/self/fd/{handler_log.descriptor}")
    assert link == "/memfd:handler-log-M-m_1.0 (deleted)"


def test_a_closed_log_keeps_nothing_and_closes_twice(
    handler_log: HandlerLog, tmp_path: Path
) -> None:
    handler_log.close()
    with (tmp_path / "other").open("wb") as other:  # to which the kernel gives the same number
        assert other.fileno() == handler_log.descriptor
        handler_log.add("W", "late")
        handler_log.close()
        assert os.fstat(other.fileno()).st_size == 0
