"""Run a command in an unpacked image as a container runtime would, in the namespaces it has.

    unshare --mount --pid --net --ipc --uts --fork in_image.py SPECIFICATION.json

The specification: `root` (the unpacked image), `user` ("UID:GID"), `env`, `cwd`, `args`,
`tmpfs` ({path: options}), `files` ({path in the image: path here}, mounted read-only) and
`writable_root`. Like a runtime with `--read-only --security-opt no-new-privileges
--cap-drop ALL`; only root can do it.
"""

import ctypes
import json
import os
import sys
from pathlib import Path
from typing import Any

MS_RDONLY, MS_NOSUID, MS_NODEV = 0x1, 0x2, 0x4
MS_REMOUNT, MS_BIND, MS_REC, MS_PRIVATE = 0x20, 0x1000, 0x4000, 0x40000
PR_CAPBSET_DROP, PR_SET_NO_NEW_PRIVS = 24, 38
DEVICES = ("null", "zero", "full", "random", "urandom", "tty")

libc = ctypes.CDLL(None, use_errno=True)


def check(result: int) -> None:
    if result:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def mount(source: str, target: Path, kind: str, flags: int, options: str = "") -> None:
    check(
        libc.mount(
            source.encode(), bytes(target), kind.encode(), ctypes.c_ulong(flags), options.encode()
        )
    )


def place(root: Path, path: str, like: Path) -> Path:
    """A mount point in the image, which a runtime makes as well."""
    target = root / path.lstrip("/")
    if like.is_dir():
        target.mkdir(parents=True, exist_ok=True)
    elif not target.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        target.touch()
    return target


def fill(root: Path, spec: dict[str, Any]) -> None:
    mount("none", Path("/"), "", MS_REC | MS_PRIVATE)
    mount(str(root), root, "", MS_BIND | MS_REC)
    mounts = {place(root, path, Path(here)): here for path, here in spec["files"].items()}
    tmpfs = {place(root, path, Path("/")): options for path, options in spec["tmpfs"].items()}
    if not spec["writable_root"]:
        mount("none", root, "", MS_REMOUNT | MS_BIND | MS_RDONLY)
    mount("proc", root / "proc", "proc", MS_NOSUID | MS_NODEV)
    mount("tmpfs", root / "dev", "tmpfs", MS_NOSUID, "mode=755,size=64k")
    for name in DEVICES:
        (root / "dev" / name).touch()
        mount(f"/dev/{name}", root / "dev" / name, "", MS_BIND)
    (root / "dev/shm").mkdir()
    mount("shm", root / "dev/shm", "tmpfs", MS_NOSUID | MS_NODEV, "mode=1777,size=64m")
    mount("/sys", root / "sys", "", MS_BIND | MS_REC)
    for target, options in tmpfs.items():
        mount("tmpfs", target, "tmpfs", MS_NOSUID | MS_NODEV, options)
    for target, here in mounts.items():
        mount(here, target, "", MS_BIND)
        mount("none", target, "", MS_REMOUNT | MS_BIND | MS_RDONLY)


def give_up_rights(user: int, group: int) -> None:
    last = int(Path("/proc/sys/kernel/cap_last_cap").read_text())
    for capability in range(last + 1):
        check(libc.prctl(PR_CAPBSET_DROP, capability, 0, 0, 0))
    check(libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
    os.setgroups([])
    os.setresgid(group, group, group)
    os.setresuid(user, user, user)


def main() -> None:
    spec = json.loads(Path(sys.argv[1]).read_text())
    root = Path(spec["root"])
    fill(root, spec)
    os.chroot(root)
    os.chdir(spec["cwd"])
    user, _, group = spec["user"].partition(":")
    give_up_rights(int(user), int(group))
    os.execve(spec["args"][0], spec["args"], spec["env"])


if __name__ == "__main__":
    main()
