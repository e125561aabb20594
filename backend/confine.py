"""What a process may no longer do once the code of a model runs in it.

    standard   no new privileges, no core dumps; the keys, the directories of other models and
               other processes are out of reach. Network and files otherwise stay as they were,
               so that handlers written for TorchServe run.
    strict     only the interpreter, the system's libraries, the model and a scratch directory
               are left of the file system (Landlock), no socket but a connected pair, and none
               of the system calls that `backend/seccomp.py` lists.

Applied to a worker, or to a model stage, before the model's first line. It cannot be undone,
and every process that the model starts inherits it. docs/sandbox.md has the whole table.
"""

import ctypes
import os
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

from torchkeep.backend import landlock, process
from torchkeep.backend.landlock import Allowed, Ruleset, everything_but
from torchkeep.backend.seccomp import refuse_system_calls
from torchkeep.runtime.kernel import SCOPE_ABI, kernel_layers, prctl
from torchkeep.runtime.messages import Sandbox
from torchkeep.runtime.processes import keep_memory_private

_PR_SET_NO_NEW_PRIVS = 38
_CAPABILITY_VERSION = 0x20080522
_UMASK_OF_OWN_USER = 0o007  # the workers of a model share its directory by their group

# What programs and libraries read of a Linux system; no secrets lie there, unlike in the rest
# of /etc, and nobody's processes, unlike in the rest of /proc.
_SYSTEM = (
    "/usr",
    "/bin",
    "/sbin",
    "/lib",
    "/lib32",
    "/lib64",
    "/etc/alternatives",
    "/etc/ca-certificates",
    "/etc/fonts",
    "/etc/group",
    "/etc/gai.conf",
    "/etc/host.conf",
    "/etc/hosts",
    "/etc/ld.so.cache",
    "/etc/ld.so.conf",
    "/etc/ld.so.conf.d",
    "/etc/localtime",
    "/etc/magic",
    "/etc/mime.types",
    "/etc/nsswitch.conf",
    "/etc/os-release",
    "/etc/passwd",
    "/etc/pki/tls/certs",
    "/etc/protocols",
    "/etc/resolv.conf",
    "/etc/services",
    "/etc/ssl/certs",
    "/etc/ssl/openssl.cnf",
    "/etc/timezone",
    "/proc/cpuinfo",
    "/proc/filesystems",
    "/proc/loadavg",
    "/proc/meminfo",
    "/proc/stat",
    "/proc/sys",
    "/proc/uptime",
    "/proc/version",
    "/sys/devices/system",
    "/sys/fs/cgroup",
    "/sys/kernel/mm",
)
_HARDWARE = ("/sys/bus/pci/devices", "/sys/devices")  # gloo looks for network cards there
_DEVICES = ("/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom")


class CannotConfine(SystemExit):
    """The sandbox that was asked for cannot be built here. The process ends."""


def confine(sandbox: Sandbox, model_dir: str, lists_interfaces: bool = False) -> None:
    """Confine this process and whatever it starts, for ever.

    `lists_interfaces`: where it has a network, it may also ask which interfaces there are, as
    gloo must before ranks can meet.

    Raises CannotConfine where `strict` lacks a layer, OSError where the kernel refuses one.
    """
    if sandbox.level == "off":
        return
    layers = kernel_layers()
    if sandbox.level == "strict":
        if layers.missing_for_strict:
            raise CannotConfine(layers.missing_for_strict)
        if (threads := process.thread_count()) != 1:
            raise CannotConfine(f"sandbox=strict needs a process of one thread, not {threads}")
    keep_memory_private()
    prctl(_PR_SET_NO_NEW_PRIVS, 1)
    # Its paths are opened here, while this may still be root.
    hardware = _HARDWARE if lists_interfaces and sandbox.allows_network else ()
    ruleset = _ruleset(sandbox, Path(model_dir), layers.landlock_abi, hardware)
    _give_up_privileges(sandbox)
    if ruleset is not None:
        ruleset.restrict()
    if sandbox.level == "strict":
        refuse_system_calls(
            allows_network=sandbox.allows_network,
            confines_signals=layers.landlock_abi < SCOPE_ABI,
            lists_interfaces=lists_interfaces,
        )


def confine_fork(sandbox: Sandbox) -> None:
    """Keep a fork of a confined model stage away from the stage and its other forks."""
    abi = kernel_layers().landlock_abi
    if sandbox.level != "off" and abi:
        Ruleset(abi, None).restrict()


def _ruleset(
    sandbox: Sandbox, model_dir: Path, abi: int, hardware: Iterable[str] = ()
) -> Ruleset | None:
    if not abi:
        return None
    if sandbox.level == "strict":
        allowed = [*_readable(sandbox, hardware), *_strictly_allowed(sandbox, model_dir)]
        return Ruleset(
            abi, allowed, allows_tcp=sandbox.allows_network, allows_abstract_sockets=False
        )
    if not sandbox.hidden:
        return Ruleset(abi, None)
    ours = _without_hidden(map(Allowed, _interpreter_paths()), sandbox)
    own = [*_of_model(model_dir, landlock.ALL), Allowed(Path(sandbox.scratch), landlock.ALL)]
    rest = everything_but(map(Path, sandbox.hidden))
    return Ruleset(abi, [*ours, *own, *(Allowed(path, landlock.ALL) for path in rest)])


def _readable(sandbox: Sandbox, hardware: Iterable[str]) -> Iterator[Allowed]:
    """What a strictly confined process may read, beside what is its own."""
    places = [*_interpreter_paths(), *map(Path, _SYSTEM), *map(Path, hardware)]
    return _without_hidden(map(Allowed, places), sandbox)


def _without_hidden(allowed: Iterable[Allowed], sandbox: Sandbox) -> Iterator[Allowed]:
    """A key or a model may lie where libraries do (PYTHONPATH=/app): there, names are all."""
    hidden = [Path(os.path.realpath(path)) for path in sandbox.hidden]
    for one in allowed:
        root = Path(os.path.realpath(one.path))
        below = [path for path in hidden if path.is_relative_to(root)]
        if not below:
            yield one
        elif root.is_dir():
            yield Allowed(root, landlock.LIST)  # or Python finds no module on the way
            yield from (Allowed(path, one.rights) for path in everything_but(below, root))


def _strictly_allowed(sandbox: Sandbox, model_dir: Path) -> Iterator[Allowed]:
    yield from (Allowed(Path(path), landlock.ALL) for path in _DEVICES)
    # An archive that came unpacked is not the server's copy, so nobody writes to it.
    yield from _of_model(model_dir, landlock.READ)
    yield Allowed(Path(sandbox.scratch), landlock.ALL)
    # A rule holds for an inode, and /proc makes a new one for whom nobody remembers: so this
    # descriptor stays open. Its own directory tells a process nothing that it does not know.
    own = os.open("/proc/self", os.O_PATH | os.O_CLOEXEC | os.O_DIRECTORY)
    yield Allowed(Path(f"/proc/self/fd/{own}"), landlock.ALL)


def _of_model(model_dir: Path, rights_in_place: int) -> Iterator[Allowed]:
    """Its directory; where that is a link to one that is served in place, what lies beside it too.

    That is where the packages are which were installed for the model.
    """
    if model_dir.is_symlink():
        yield Allowed(model_dir, rights_in_place)
        yield Allowed(model_dir.parent, landlock.READ)
    else:
        yield Allowed(model_dir, landlock.ALL)


def _interpreter_paths() -> set[Path]:
    """Where this Python and its libraries are, links to libraries elsewhere followed."""
    places = {sys.prefix, sys.base_prefix, sys.exec_prefix, *filter(os.path.isabs, sys.path)}
    places.add(os.path.dirname(os.path.abspath(__file__)))  # an editable install is elsewhere
    places.add(os.path.dirname(os.path.abspath(sys.modules[Sandbox.__module__].__file__ or "")))
    for name in ("LD_LIBRARY_PATH", "LD_PRELOAD"):
        places.update(filter(os.path.isabs, os.environ.get(name, "").split(":")))
    found = {Path(os.path.realpath(place)) for place in places} - {Path("/")}
    for directory in list(found):
        if directory.name in ("site-packages", "dist-packages") and directory.is_dir():
            # A rule for a link is one for what it points to.
            found.update(Path(entry.path) for entry in os.scandir(directory) if entry.is_symlink())
    return found


def _give_up_privileges(sandbox: Sandbox) -> None:
    if sandbox.uid:
        parent = os.getppid()
        os.setgroups([])
        os.setresgid(sandbox.gid, sandbox.gid, sandbox.gid)
        os.setresuid(sandbox.uid, sandbox.uid, sandbox.uid)
        os.umask(_UMASK_OF_OWN_USER)
        # Both are forgotten with the old user.
        keep_memory_private()
        process.die_with(parent)
    elif os.geteuid() == 0:
        _drop_capabilities()


def _drop_capabilities() -> None:
    """What root is without them: the owner of root's files, and no more."""
    libc = ctypes.CDLL(None, use_errno=True)
    header = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION, 0)
    nothing = (ctypes.c_uint32 * 6)()
    if libc.capset(header, nothing):
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
