"""A log file that rolls as TorchServe's do: at 100 MB, at midnight, five old ones kept.

Where the file system is small, such as a volume in memory, it rolls before that.

Only the thread that writes the logs uses it; older files are compressed beside it, so that
a hundred megabytes of them hold up no line.
"""

import gzip
import os
import shutil
import threading
import time
from contextlib import suppress
from io import FileIO
from pathlib import Path

MAX_BYTES = 100 << 20
MAX_SHARE = 1 / 100  # of its file system, which may be memory that models are unpacked into
MAX_OLD_FILES = 5
_COMPRESSION = 1  # log lines repeat themselves: more effort gains little


class LogFile:
    """`name.log` in a directory; old ones are `name.25-Nov.log.gz`, `name.25-Nov.2.log.gz`."""

    def __init__(self, directory: Path, name: str, max_bytes: int = MAX_BYTES) -> None:
        self.path = directory / f"{name}.log"
        self._name = name
        self._max_bytes = max_bytes
        self._file: FileIO | None = None
        self._size = 0
        self._day = ""
        self._compressing: threading.Thread | None = None

    def open(self) -> None:
        """Go on where the file ends. Raises OSError where it cannot be written."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._file = FileIO(self.path, "a", opener=_open_for_group)
        status = os.fstat(self._file.fileno())
        self._size = status.st_size
        self._max_bytes = min(self._max_bytes, _share_of_disk(self._file.fileno()))
        self._day = _day(status.st_mtime if self._size else time.time())

    def write(self, text: str) -> None:
        """Append whole lines. Raises OSError where they cannot be written."""
        lines = text.encode("utf-8", "backslashreplace")
        today = _day(time.time())
        if self._size and (self._day != today or self._size + len(lines) > self._max_bytes):
            self._roll()
        if self._file is None:
            self.open()
        assert self._file is not None
        self._day = today
        self._size += self._file.write(lines)

    def close(self) -> None:
        """Until old files are compressed, too."""
        if self._file is not None:
            self._file.close()
            self._file = None
        if self._compressing is not None:
            self._compressing.join()

    def _roll(self) -> None:
        self.close()
        old = self._old_path()
        self.path.rename(old)
        self._size = 0
        self._compressing = threading.Thread(
            target=self._compress, args=(old,), name="log-compression", daemon=True
        )
        self._compressing.start()

    def _old_path(self) -> Path:
        """A name that no old file of that day has. TorchServe: the second would replace it."""
        number = 1
        while True:
            suffix = "" if number == 1 else f".{number}"
            old = self.path.with_name(f"{self._name}.{self._day}{suffix}.log")
            if not old.exists() and not old.with_name(f"{old.name}.gz").exists():
                return old
            number += 1

    def _compress(self, old: Path) -> None:
        part = old.with_name(f"{old.name}.gz.part")
        # A full disk leaves the old file as it is, or nothing of it: the log itself goes on.
        with suppress(OSError):
            with (
                old.open("rb") as plain,
                FileIO(part, "w", opener=_open_for_group) as file,
                gzip.GzipFile(old.name, "wb", _COMPRESSION, file) as packed,
            ):
                shutil.copyfileobj(plain, packed, 1 << 20)
            status = old.stat()
            os.utime(part, ns=(status.st_atime_ns, status.st_mtime_ns))
            part.rename(part.with_suffix(""))
            old.unlink()
        with suppress(OSError):
            self._remove_oldest()

    def _remove_oldest(self) -> None:
        old_files = list(self.path.parent.glob(f"{self._name}.*.log*"))
        old_files.sort(key=lambda path: path.stat().st_mtime_ns, reverse=True)
        for path in old_files[MAX_OLD_FILES:]:
            path.unlink()


def _open_for_group(path: str, flags: int) -> int:
    """Not for everybody: a worker with a user of its own has no business in other models' logs."""
    return os.open(path, flags, 0o640)


def _share_of_disk(file: int) -> int:
    """The bytes that one file may have where it lies."""
    disk = os.fstatvfs(file)
    size = disk.f_blocks * disk.f_frsize
    return int(size * MAX_SHARE) if size else MAX_BYTES  # a ramfs has no size


def _day(at: float) -> str:
    return time.strftime("%d-%b", time.localtime(at))
