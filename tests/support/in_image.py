"""Run a command in an unpacked image as a container runtime would, in the namespaces it has.

    own_network.py in_image.py SPECIFICATION.json

The specification: `image` (unpacked, and left alone), `user` ("UID:GID"), `env`, `cwd`, `args`,
`tmpfs` ({path: options}), `files` ({path in the image: path here}, mounted read-only) and
`writable_root`. Like a runtime with `--read-only --security-opt no-new-privileges
--cap-drop ALL`; only root can do it. The exit code is the command's, or 128 and the number of the
signal that ended it.
"""

import ctypes
import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

MS_RDONLY, MS_NOSUID, MS_NODEV = 0x1, 0x2, 0x4
MS_REMOUNT, MS_BIND, MS_REC, MS_PRIVATE = 0x20, 0x1000, 0x4000, 0x40000
PR_SET_PDEATHSIG, PR_CAPBSET_DROP, PR_SET_NO_NEW_PRIVS = 1, 24, 38
NAMESPACES = 0x20000 | 0x4000000 | 0x8000000 | 0x20000000  # mounts, names, IPC, processes
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


def layered(image: Path, workdir: Path) -> Path:
    """The image below a layer of the container's own, which goes with it."""
    layer, root = workdir / "layer", workdir / "root"
    for directory in (layer, root):
        directory.mkdir()
    mount("tmpfs", layer, "tmpfs", MS_NOSUID | MS_NODEV)
    for name in ("upper", "work"):
        (layer / name).mkdir()
    options = f"lowerdir={image},upperdir={layer}/upper,workdir={layer}/work"
    mount("overlay", root, "overlay", 0, options)
    return root


def fill(root: Path, spec: dict[str, Any]) -> None:
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
    check(libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0))


def main() -> None:
    check(libc.unshare(NAMESPACES))
    if first := os.fork():
        code = os.waitstatus_to_exitcode(os.waitpid(first, 0)[1])
        sys.exit(128 - code if code < 0 else code)
    spec = json.loads(Path(sys.argv[1]).read_text())
    mount("none", Path("/"), "", MS_REC | MS_PRIVATE)
    root = layered(Path(spec["image"]), Path(sys.argv[1]).parent)
    fill(root, spec)
    os.chroot(root)
    os.chdir(spec["cwd"])
    user, _, group = spec["user"].partition(":")
    give_up_rights(int(user), int(group))
    os.execve(spec["args"][0], spec["args"], spec["env"])


if __name__ == "__main__":
    main()
