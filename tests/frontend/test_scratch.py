"""Scratch directories: private, removed, and swept after a server that was killed."""

import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from torchkeep.frontend.scratch import ScratchDir

PREFIX = "torchkeep-test-"
KILLED = f"""
import os, signal, tempfile
from torchkeep.frontend.scratch import ScratchDir
(ScratchDir("{PREFIX}").path / "file").touch()
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture(autouse=True)
def temp(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    return tmp_path


def test_a_directory_is_private_and_goes(temp: Path) -> None:
    scratch = ScratchDir(PREFIX)
    assert scratch.path.parent == temp
    assert scratch.path.stat().st_mode & 0o077 == 0
    scratch.remove()
    assert list(temp.iterdir()) == []


def test_what_a_killed_server_left_goes_at_the_next_start(temp: Path) -> None:
    subprocess.run([sys.executable, "-c", KILLED], check=False)
    (left,) = temp.iterdir()
    scratch = ScratchDir(PREFIX)
    assert list(temp.iterdir()) == [scratch.path]
    assert scratch.path != left
    scratch.remove()


def test_a_directory_in_use_and_other_names_stay(temp: Path) -> None:
    target = temp / "elsewhere"
    target.mkdir()
    link, file = temp / f"{PREFIX}link", temp / f"{PREFIX}file"
    link.symlink_to(target)
    file.touch()
    first, second = ScratchDir(PREFIX), ScratchDir(PREFIX)
    assert first.path.is_dir()
    assert target.is_dir()
    assert link.is_symlink()
    assert file.is_file()
    first.remove()
    second.remove()
