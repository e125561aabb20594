"""Users that workers run as where the server was started as root: one each, nobody else's.

From the range that systemd keeps for users without an entry in /etc/passwd. A process of such
a user can neither read the files, nor signal, nor trace the processes of any other.
"""

import grp
import os
import pwd
import secrets
import sys
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

FIRST_ID, LAST_ID = 61184, 65519

# What root needs to give files to a worker, to become its user, to end it and to remove what
# it leaves: CAP_CHOWN, CAP_DAC_OVERRIDE, CAP_FOWNER, CAP_KILL, CAP_SETGID, CAP_SETUID.
_NEEDED = {0: "CHOWN", 1: "DAC_OVERRIDE", 3: "FOWNER", 5: "KILL", 6: "SETGID", 7: "SETUID"}
SYS_NICE = 23  # to pin a process of another user to cores


class WorkerUsers:
    """Hands out ids that are free; an id is a user's or a group's, never both at a time."""

    def __init__(self, taken: Iterable[int]) -> None:
        self._taken = set(taken)
        self._next = FIRST_ID + secrets.randbelow(LAST_ID - FIRST_ID + 1)

    def take(self) -> int:
        """An id until `give_back`. Raises OSError when all are in use."""
        for _ in range(FIRST_ID, LAST_ID + 1):
            candidate = self._next
            self._next = FIRST_ID if candidate == LAST_ID else candidate + 1
            if candidate not in self._taken:
                self._taken.add(candidate)
                return candidate
        raise OSError(f"no free user id from {FIRST_ID} to {LAST_ID}")

    def give_back(self, one: int) -> None:
        self._taken.discard(one)


def obstacle_to_own_users() -> str:
    """Why workers cannot have users of their own, in one line; empty where they can.

    Only asked of a server that runs as root.
    """
    missing = [name for bit, name in _NEEDED.items() if not has_capability(bit)]
    if missing:
        return f"root lacks the capabilities {', '.join(missing)}"
    for table in ("uid_map", "gid_map"):
        if not _maps_all(Path("/proc/self", table)):
            return f"this container has no ids from {FIRST_ID} to {LAST_ID}"
    places = {sys.prefix, sys.base_prefix, os.path.dirname(os.path.abspath(__file__))}
    for place in sorted(places):
        if closed := closed_to_others(Path(place)):
            return f"{closed} is closed to other users, and this Python lies below it"
    return ""


def closed_to_others(path: Path) -> Path | None:
    """The first directory on the way to a directory that other users cannot enter."""
    real = Path(os.path.realpath(path))
    for one in [*reversed(real.parents), real]:
        if not one.stat().st_mode & 0o001:
            return one
    return None


def has_capability(bit: int) -> bool:
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith("CapEff:"):
            return bool(int(line.split()[1], 16) >> bit & 1)
    return False


def ids_in_use() -> set[int]:
    """Ids of the range that an account, a group or a process has."""
    found = {entry.pw_uid for entry in pwd.getpwall()} | {entry.gr_gid for entry in grp.getgrall()}
    for name in os.listdir("/proc"):
        with suppress(OSError, ValueError):
            for line in Path("/proc", name, "status").read_text().splitlines():
                if line.startswith(("Uid:", "Gid:")):
                    found.update(map(int, line.split()[1:]))
    return {one for one in found if FIRST_ID <= one <= LAST_ID}


def _maps_all(table: Path) -> bool:
    spans = [tuple(map(int, line.split())) for line in table.read_text().splitlines()]
    return any(first <= FIRST_ID and first + count > LAST_ID for first, _, count in spans)
