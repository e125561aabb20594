"""Log files go on where they ended, roll by size and by day, and keep five old ones."""

import gzip
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from torchkeep.runtime.log_files import MAX_OLD_FILES, LogFile

DAY_S = 86_400


def day(at: float) -> str:
    return time.strftime("%d-%b", time.localtime(at))


def names(directory: Path) -> set[str]:
    return {path.name for path in directory.iterdir()}


def write(directory: Path, *texts: str, max_bytes: int = 100) -> None:
    file = LogFile(directory, "ts_log", max_bytes)
    file.open()
    for text in texts:
        file.write(text)
    file.close()


def test_a_file_goes_on_where_it_ended(tmp_path: Path) -> None:
    place = tmp_path / "new" / "logs"
    write(place, "one\n")
    write(place, "mod\u00e8le\udcff\n")
    assert (place / "ts_log.log").read_bytes() == b"one\nmod\xc3\xa8le\\udcff\n"


def test_a_file_that_would_grow_too_large_rolls(tmp_path: Path) -> None:
    write(tmp_path, "a" * 60, "b" * 40, "c", max_bytes=100)
    today = day(time.time())
    assert names(tmp_path) == {"ts_log.log", f"ts_log.{today}.log.gz"}
    assert (tmp_path / "ts_log.log").read_text() == "c"
    with gzip.open(tmp_path / f"ts_log.{today}.log.gz", "rt") as old:
        assert old.read() == "a" * 60 + "b" * 40


def test_others_than_owner_and_group_read_no_log(tmp_path: Path) -> None:
    write(tmp_path, "a" * 90, "b" * 90)
    assert {path.stat().st_mode & 0o777 for path in tmp_path.iterdir()} == {0o640}


def test_the_second_old_file_of_a_day_does_not_replace_the_first(tmp_path: Path) -> None:
    write(tmp_path, "a" * 90, "b" * 90, "c" * 90)
    today = day(time.time())
    assert names(tmp_path) == {
        "ts_log.log",
        f"ts_log.{today}.log.gz",
        f"ts_log.{today}.2.log.gz",
    }


def test_one_piece_larger_than_the_limit_is_written_whole(tmp_path: Path) -> None:
    write(tmp_path, "a" * 1000)
    assert names(tmp_path) == {"ts_log.log"}


def test_a_file_of_yesterday_rolls_under_its_own_day(tmp_path: Path) -> None:
    write(tmp_path, "old\n")
    yesterday = time.time() - DAY_S
    os.utime(tmp_path / "ts_log.log", (yesterday, yesterday))
    write(tmp_path, "new\n")
    assert names(tmp_path) == {"ts_log.log", f"ts_log.{day(yesterday)}.log.gz"}
    assert (tmp_path / "ts_log.log").read_text() == "new\n"


def test_midnight_rolls_a_file_in_use(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = LogFile(tmp_path, "ts_log")
    file.open()
    file.write("today\n")
    today, tomorrow = day(time.time()), time.time() + DAY_S
    monkeypatch.setattr(time, "time", lambda: tomorrow)
    file.write("tomorrow\n")
    file.close()
    assert names(tmp_path) == {"ts_log.log", f"ts_log.{today}.log.gz"}


def test_five_old_files_are_kept_the_youngest(tmp_path: Path) -> None:
    for age in range(1, 10):
        path = tmp_path / f"ts_log.{age:02d}-Jan.log.gz"
        path.touch()
        os.utime(path, (age * DAY_S, age * DAY_S))
    (tmp_path / "model_log.01-Jan.log.gz").touch()  # another log's
    write(tmp_path, "a" * 90, "b" * 90)
    kept = {f"ts_log.{age:02d}-Jan.log.gz" for age in range(6, 10)}
    assert len(kept) + 1 == MAX_OLD_FILES
    assert names(tmp_path) == kept | {
        "ts_log.log",
        "model_log.01-Jan.log.gz",
        f"ts_log.{day(time.time())}.log.gz",
    }


def test_a_directory_that_went_away_is_made_again(tmp_path: Path) -> None:
    place = tmp_path / "logs"
    file = LogFile(place, "ts_log", max_bytes=100)
    file.open()
    file.write("a" * 90)
    (place / "ts_log.log").unlink()
    place.rmdir()
    with pytest.raises(FileNotFoundError):
        file.write("b" * 90)  # nothing is there to roll
    file.write("c")
    file.close()
    assert (place / "ts_log.log").read_text() == "c"


WRITER = """
import sys
from pathlib import Path
from torchkeep.runtime.log_files import LogFile
file = LogFile(Path(sys.argv[1]), "ts_log")
file.open()
for _ in range(4096):
    file.write("a" * 1023 + "\\n")
file.close()
for one in Path(sys.argv[1]).iterdir():
    print(one.stat().st_size, one.name)
"""


def test_on_a_small_file_system_a_file_rolls_at_a_hundredth_of_it(tmp_path: Path) -> None:
    """As a volume in memory is: logs must not fill what models are unpacked into."""
    script = 'mount -t tmpfs -o size=10m logs "$1" && exec "$2" -c "$3" "$1"'
    namespace = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", script, "-"]
    arguments = [str(tmp_path), sys.executable, WRITER]
    run = subprocess.run([*namespace, *arguments], capture_output=True, text=True)
    if run.returncode != 0 and ("mount:" in run.stderr or "unshare" in run.stderr):
        pytest.skip(f"no file system can be mounted: {run.stderr.strip()}")
    assert run.returncode == 0, run.stderr
    sizes = [int(line.split()[0]) for line in run.stdout.splitlines()]
    assert len(sizes) == 1 + MAX_OLD_FILES, run.stdout
    assert sum(sizes) < (10 << 20) / 50
