"""Where archives are unpacked: `{root}/models/{32 hex digits}`, one directory per open archive.

TorchServe uses the same place, and so may another server of ours. Beside each directory lies
`.{32 hex digits}.lock`, which its server holds locked while it lives; the kernel lets go when
the server dies. A directory whose lock can be taken is therefore ours and unused; one without
a lock file is somebody else's.
"""

import contextlib
import fcntl
import logging
import os
import re
import shutil
import stat
import uuid
from pathlib import Path

log = logging.getLogger(__name__)

_LOCK_NAME = re.compile(r"\.([0-9a-f]{32})\.lock")


class UnpackArea:
    """Creates and removes the directories of open archives below one root."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.models = root / "models"

    def create(self) -> "UnpackDir":
        """A fresh directory that only this user can enter."""
        self.models.mkdir(mode=0o700, parents=True, exist_ok=True)
        if self.models.stat().st_uid not in (0, os.geteuid()):
            # its owner could exchange what we unpack for something else
            raise PermissionError(f"{self.models} belongs to another user")
        while True:
            name = uuid.uuid4().hex
            lock_path = self.models / f".{name}.lock"
            lock = os.open(lock_path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            if _try_lock(lock, lock_path):
                break
            os.close(lock)  # a sweep was faster; it removes the file
        unpacked = UnpackDir(self.models / name, lock_path, lock)
        try:
            unpacked.path.mkdir(mode=0o700)
        except OSError:
            unpacked.remove()
            raise
        return unpacked

    def sweep(self) -> int:
        """Remove what a crashed server of ours left behind; says how many directories."""
        removed = 0
        for lock_path in sorted(self.models.glob(".*.lock")):
            match = _LOCK_NAME.fullmatch(lock_path.name)
            if match is None:
                continue
            with contextlib.suppress(OSError):
                lock = os.open(lock_path, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
                if os.fstat(lock).st_uid == os.geteuid() and _try_lock(lock, lock_path):
                    UnpackDir(self.models / match[1], lock_path, lock).remove()
                    removed += 1
                else:
                    os.close(lock)
        return removed


class UnpackDir:
    """One directory and the lock that says it is in use."""

    def __init__(self, path: Path, lock_path: Path, lock: int) -> None:
        self.path = path
        self.lock_path = lock_path
        self._lock: int | None = lock

    def create_beside(self) -> "UnpackDir":
        """Another, empty one in the same area."""
        return UnpackArea(self.path.parent.parent).create()

    def remove(self) -> None:
        """Delete the directory, never what links in it point to. May be called twice."""
        if self._lock is None:
            return
        shutil.rmtree(self.path, ignore_errors=True)
        if self.path.exists():
            _open_up(self.path)
            shutil.rmtree(self.path, ignore_errors=True)
        if self.path.exists():
            log.warning("could not remove all of %s", self.path)
        else:
            self.lock_path.unlink(missing_ok=True)
        os.close(self._lock)
        self._lock = None


def _open_up(directory: Path) -> None:
    """Take back our rights on directories which who made them has closed, even to himself."""
    with contextlib.suppress(OSError):
        directory.chmod(0o700)
        for place, names, _ in os.walk(directory):
            for path in (os.path.join(place, name) for name in names):
                if not os.path.islink(path):
                    os.chmod(path, 0o700)


def _try_lock(lock: int, path: Path) -> bool:
    """Lock an open lock file; False if it is taken or no longer the file of that name."""
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        ours, named = os.fstat(lock), path.lstat()
    except (BlockingIOError, FileNotFoundError):
        return False
    return stat.S_ISREG(named.st_mode) and os.path.samestat(ours, named)
