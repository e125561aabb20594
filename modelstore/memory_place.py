"""Where sealed archives are unpacked: below a directory that is in memory, never on a disk.

`unpack_directory`, where the configuration says one, and nothing else; otherwise the directory
for temporary files if that is in memory, or else a directory of this user's own in /dev/shm.
"""

import ctypes
import os
import stat
from pathlib import Path

from torchkeep.modelstore.errors import NoRoomInMemory
from torchkeep.modelstore.unpack_area import UnpackArea

SHARED_MEMORY = Path("/dev/shm")
TMPFS, RAMFS = 0x01021994, 0x858458F6  # as statfs tells them
STATFS_BYTES = 256  # more than the structure has anywhere


class MemoryPlace:
    """Chooses and checks; `configured` is `unpack_directory`, `temporary` where it is not set."""

    def __init__(
        self, configured: Path | None, temporary: Path, *, is_disk_allowed: bool = False
    ) -> None:
        self.configured = configured
        self.temporary = temporary
        self.is_disk_allowed = is_disk_allowed

    def area(self) -> UnpackArea:
        """Where to unpack now; raises NoRoomInMemory where that would be on a disk."""
        for root in self.roots():
            if is_in_memory(root):
                return UnpackArea(root)
        chosen = self.configured or self.temporary
        if not self.is_disk_allowed:
            raise NoRoomInMemory(
                f"{chosen} is not in memory (tmpfs), and a sealed archive is not unpacked on a "
                "disk: set unpack_directory to a directory on a tmpfs, or "
                "allow_unsealed_on_disk=true."
            )
        return UnpackArea(chosen)

    def roots(self) -> list[Path]:
        """Every place that may be chosen, in this order."""
        if self.configured is not None:
            return [self.configured]
        own = SHARED_MEMORY / f"torchkeep-{os.geteuid()}"
        return [self.temporary, own] if _is_ours(own) else [self.temporary]


def is_in_memory(directory: Path) -> bool:
    """Whether files here are kept in memory; a missing directory is made, where that is allowed."""
    try:
        directory.mkdir(mode=0o711, parents=True, exist_ok=True)
        descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        statfs = ctypes.create_string_buffer(STATFS_BYTES)
        if ctypes.CDLL(None, use_errno=True).fstatfs(descriptor, statfs) != 0:
            return False
    finally:
        os.close(descriptor)
    # The first member, a word; ramfs's number has the upper bit of 32 set.
    kind = ctypes.c_long.from_buffer(statfs).value & 0xFFFFFFFF
    return kind in (TMPFS, RAMFS)


def check_room(directory: Path, needed_bytes: int) -> None:
    """Raise NoRoomInMemory unless so many bytes are free where `directory` is."""
    status = os.statvfs(directory)
    free_bytes = status.f_bavail * status.f_frsize
    has_limit = status.f_blocks > 0  # a ramfs has none, and says zero
    if has_limit and needed_bytes > free_bytes:
        raise NoRoomInMemory(
            f"The archive needs {_megabytes(needed_bytes)} of memory below {directory.parent}, "
            f"where {_megabytes(free_bytes)} are free: give that file system more, "
            "or set unpack_directory to a larger one."
        )


def _is_ours(directory: Path) -> bool:
    """Whether nobody was there first; everybody may write to /dev/shm."""
    try:
        status = directory.lstat()
    except FileNotFoundError:
        return SHARED_MEMORY.is_dir()
    except OSError:
        return False
    return stat.S_ISDIR(status.st_mode) and status.st_uid == os.geteuid()


def _megabytes(count: int) -> str:
    return f"{count} bytes ({count / (1 << 20):.0f} MiB)"
