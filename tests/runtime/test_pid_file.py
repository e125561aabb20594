"""The pid file is a hint: what is written, and whose number is believed."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from torchkeep.runtime.pid_file import PidFile, is_alive, is_server


@pytest.fixture
def pid_file(tmp_path: Path) -> PidFile:
    return PidFile(tmp_path / ".model_server.pid")


def test_what_was_written_is_read(pid_file: PidFile) -> None:
    assert pid_file.read() is None
    pid_file.write(1)
    pid_file.write(4711)
    assert pid_file.read() == 4711
    assert pid_file.path.read_text().splitlines()[0] == "4711"
    pid_file.remove()
    pid_file.remove()
    assert pid_file.read() is None
    assert os.listdir(pid_file.path.parent) == []


@pytest.mark.parametrize("content", ["", "x\n", "\n1\n"])
def test_what_is_no_number_is_a_value_error(pid_file: PidFile, content: str) -> None:
    pid_file.path.write_text(content)
    with pytest.raises(ValueError, match="invalid literal for int"):
        pid_file.read()


def test_only_the_first_line_counts(pid_file: PidFile) -> None:
    pid_file.path.write_text("12\nx\n")
    assert pid_file.read() == 12


def test_a_symlink_is_replaced_and_not_followed(pid_file: PidFile) -> None:
    target = pid_file.path.parent / "target"
    target.write_text("precious")
    pid_file.path.symlink_to(target)
    pid_file.write(1)
    assert target.read_text() == "precious"
    assert not pid_file.path.is_symlink()


def test_nothing_is_left_of_a_write_that_failed(pid_file: PidFile) -> None:
    pid_file.path.mkdir()
    with pytest.raises(IsADirectoryError):
        pid_file.write(1)
    assert os.listdir(pid_file.path.parent) == [pid_file.path.name]


def test_a_server_removes_its_own_file_only(pid_file: PidFile) -> None:
    pid_file.write(1)
    pid_file.remove_own()
    assert pid_file.read() == 1
    pid_file.path.write_text("x")
    pid_file.remove_own()
    assert pid_file.path.exists()
    pid_file.write(os.getpid())
    pid_file.remove_own()
    assert not pid_file.path.exists()


def ran_as(*arguments: str) -> bool:
    """Whether a process with this command line passes for a server."""
    with subprocess.Popen(
        [sys.executable, *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        process.stdout.read(1)  # by now it is Python, not the fork of this process
        try:
            assert is_alive(process.pid)
            return is_server(process.pid)
        finally:
            process.communicate()


WAIT = "import sys; print(flush=True); sys.stdin.read()"


def test_a_server_is_known_by_its_command_line(tmp_path: Path) -> None:
    for name in ("torchserve", "torchkeep", "other"):
        (tmp_path / name).write_text(WAIT)
    assert ran_as("-c", WAIT, "-m", "torchkeep.runtime", "--foreground")
    assert ran_as(str(tmp_path / "torchserve"), "--foreground")
    assert ran_as(str(tmp_path / "torchkeep"), "serve")
    assert not ran_as(str(tmp_path / "other"), "torchserve")
    assert not ran_as("-c", WAIT)


def test_a_process_that_is_gone_is_no_server() -> None:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    assert not is_alive(process.pid)
    assert not is_server(process.pid)
