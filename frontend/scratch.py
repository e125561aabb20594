"""A temporary directory that outlives its server by no more than the next start.

The server holds the directory itself locked while it lives; the kernel lets go when the server
dies, however it dies. So a directory of ours that can be locked was left behind.
"""

import fcntl
import os
import shutil
import tempfile
from contextlib import suppress
from pathlib import Path


class ScratchDir:
    """A fresh directory that only this user can enter; `remove` it at the end."""

    def __init__(self, prefix: str) -> None:
        _sweep(prefix)
        while True:
            self.path = Path(tempfile.mkdtemp(prefix=prefix))
            lock = _try_lock(self.path)
            if lock is not None:
                self._lock = lock
                return

    def remove(self) -> None:
        shutil.rmtree(self.path, ignore_errors=True)
        os.close(self._lock)


def _sweep(prefix: str) -> None:
    for path in Path(tempfile.gettempdir()).glob(f"{prefix}*"):
        lock = _try_lock(path)
        if lock is not None:
            shutil.rmtree(path, ignore_errors=True)
            os.close(lock)


def _try_lock(path: Path) -> int | None:
    """A descriptor that holds the lock; None if another has it, or it is not our directory."""
    with suppress(OSError):
        lock = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        with suppress(OSError):
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # A sweep may have been faster than the lock: then the name is gone.
            is_there = os.path.samestat(os.fstat(lock), path.lstat())
            if is_there and os.fstat(lock).st_uid == os.geteuid():
                return lock
        os.close(lock)
    return None
