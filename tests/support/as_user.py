"""Run a command as another user, who sees what is needed of directories closed to others.

    as_user.py UID DIRECTORY NEEDED... -- COMMAND...

UID becomes the owner of DIRECTORY and all below; 0 stays root. Where a NEEDED path (the
interpreter, the checkout) lies below a directory that other users cannot enter, such as a home
directory, the command gets a mount namespace of its own in which that directory is open and
holds nothing but what is needed. Only root can run this.
"""

import ctypes
import os
import sys
from pathlib import Path

CLONE_NEWNS = 0x20000
MS_BIND, MS_REC, MS_PRIVATE = 0x1000, 0x4000, 0x40000

libc = ctypes.CDLL(None, use_errno=True)


def check(result: int) -> None:
    if result:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def mount(source: str, target: Path, kind: bytes | None, flags: int, options: bytes) -> None:
    check(libc.mount(source.encode(), bytes(target), kind, ctypes.c_ulong(flags), options))


def first_closed(path: Path) -> Path | None:
    for one in [*reversed(path.parents), path]:
        if not one.stat().st_mode & 0o001:
            return one
    return None


def open_view(needed: list[Path]) -> None:
    closed: dict[Path, list[Path]] = {}
    for path in needed:
        if way := first_closed(path):
            closed.setdefault(way, []).append(path)
    if not closed:
        return
    check(libc.unshare(CLONE_NEWNS))
    mount("none", Path("/"), None, MS_REC | MS_PRIVATE, b"")
    for way, paths in closed.items():
        held = {path: os.open(path, os.O_PATH) for path in paths}
        mount("view", way, b"tmpfs", 0, b"mode=755,size=1m")
        for path, descriptor in held.items():
            path.mkdir(parents=True, exist_ok=True)
            mount(f"/proc/self/fd/{descriptor}", path, None, MS_BIND | MS_REC, b"")
            os.close(descriptor)


def main() -> None:
    uid, directory, *rest = sys.argv[1:]
    split = rest.index("--")
    open_view([Path(os.path.realpath(path)) for path in rest[:split]])
    user = int(uid)
    if user:
        for parent, directories, files in os.walk(directory):
            for name in (".", *directories, *files):
                os.chown(os.path.join(parent, name), user, user, follow_symlinks=False)
        os.setgroups([])
        os.setresgid(user, user, user)
        os.setresuid(user, user, user)
    command = rest[split + 1 :]
    os.execv(command[0], command)


if __name__ == "__main__":
    main()
