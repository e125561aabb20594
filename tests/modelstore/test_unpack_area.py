"""Only what is provably ours and unused may be swept away."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from uncovered import uncovered_environment

from torchkeep.modelstore import unpack_area
from torchkeep.modelstore.unpack_area import UnpackArea

CRASH = """
import os, sys
from pathlib import Path
from torchkeep.modelstore.unpack_area import UnpackArea
(UnpackArea(Path(sys.argv[1])).create().path / "leftover").touch()
os._exit(1)
"""


def test_what_a_crashed_server_left_is_swept(tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-c", CRASH, str(tmp_path)], check=False, timeout=60)
    area = UnpackArea(tmp_path)
    assert len(os.listdir(area.models)) == 2
    assert area.sweep() == 1
    assert os.listdir(area.models) == []


def test_what_is_in_use_or_not_ours_stays(tmp_path: Path) -> None:
    area = UnpackArea(tmp_path)
    in_use = area.create()
    torchserves = area.models / ("0" * 32)
    torchserves.mkdir()
    others = [area.models / name for name in (".x.lock", f".{'1' * 32}.locked", f"{'2' * 32}.lock")]
    for path in others:
        path.touch()
    (area.models / f".{'3' * 32}.lock").symlink_to(others[0])
    before = sorted(os.listdir(area.models))
    assert area.sweep() == 0
    assert sorted(os.listdir(area.models)) == before
    in_use.remove()
    in_use.remove()
    assert not in_use.path.exists()


def test_sweep_does_not_follow_links(tmp_path: Path) -> None:
    area = UnpackArea(tmp_path / "root")
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious/file").touch()
    area.models.mkdir(parents=True)
    (area.models / ("4" * 32)).symlink_to(tmp_path / "precious")
    (area.models / f".{'4' * 32}.lock").touch()
    area.sweep()
    assert (tmp_path / "precious/file").exists()


def test_nothing_to_sweep(tmp_path: Path) -> None:
    assert UnpackArea(tmp_path / "missing").sweep() == 0


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to give a directory away")
def test_a_place_of_another_user_is_not_used(tmp_path: Path) -> None:
    area = UnpackArea(tmp_path)
    area.models.mkdir()
    os.chown(area.models, 12345, 12345)
    with pytest.raises(PermissionError, match="belongs to another user"):
        area.create()


def test_a_directory_that_cannot_be_made_leaves_no_lock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    area = UnpackArea(tmp_path)
    area.create().remove()
    mkdir = Path.mkdir

    def fail(path: Path, *args: object, **options: object) -> None:
        if path.parent == area.models:
            raise OSError(28, "No space left on device")
        mkdir(path, *args, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(Path, "mkdir", fail)
    with pytest.raises(OSError, match="No space"):
        area.create()
    assert os.listdir(area.models) == []


def test_a_lock_that_a_sweep_took_first_is_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    area = UnpackArea(tmp_path)
    answers = [False, True]
    monkeypatch.setattr(unpack_area, "_try_lock", lambda *_: answers.pop(0))
    unpacked = area.create()
    assert unpacked.path.is_dir()
    unpacked.remove()
    assert answers == []


CLOSED = """
import os, sys
from pathlib import Path
from torchkeep.modelstore.unpack_area import UnpackArea
if os.geteuid() == 0:  # root is kept out of nothing
    os.chown(".", 65534, 65534)
    os.setresgid(65534, 65534, 65534)
    os.setresuid(65534, 65534, 65534)
outside = Path("outside")
outside.mkdir(0o500)
unpacked = UnpackArea(Path(".")).create()
inner = unpacked.path / "read_only" / "closed"
inner.mkdir(parents=True)
(inner / "file").touch()
(inner / "link").symlink_to(outside.absolute())
(inner.parent / "link").symlink_to(outside.absolute())
inner.chmod(0)
inner.parent.chmod(0o500)
unpacked.path.chmod(0)
unpacked.remove()
print(os.listdir("models"), oct(outside.stat().st_mode & 0o777))
"""


def test_directories_that_a_model_has_closed_are_removed(tmp_path: Path) -> None:
    command = [sys.executable, "-c", CLOSED]
    # The user that it becomes cannot write its coverage.
    environment = uncovered_environment()
    done = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60
    )
    assert (done.stdout, done.stderr) == ("[] 0o500\n", "")
