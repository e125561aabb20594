"""Landlock: what this process and its descendants may still reach. It only ever narrows.

An allow-list, checked along the path from a file up to the root: a right granted on a
directory holds for everything below, and nothing below can be taken out again. A process
that is restricted can also not trace, or read through /proc, any process outside of its
domain, whatever its user id and capabilities.
"""

import ctypes
import os
import stat
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from torchkeep.runtime.kernel import LANDLOCK_CREATE_RULESET, SCOPE_ABI, syscall

_ADD_RULE = 445
_RESTRICT_SELF = 446
_PATH_BENEATH = 1

_EXECUTE, _WRITE_FILE, _READ_FILE, _READ_DIR = (1 << bit for bit in range(4))
_MAKE_BLOCK = 1 << 11
_REFER, _TRUNCATE, _IOCTL_DEV = 1 << 13, 1 << 14, 1 << 15
_FOR_FILES = _EXECUTE | _WRITE_FILE | _READ_FILE | _TRUNCATE | _IOCTL_DEV
_FIRST_VERSION = (1 << 13) - 1
_TCP_BIND_AND_CONNECT = 0b11
_TCP_ABI = 4
_ABSTRACT_SOCKETS, _SIGNALS = 1 << 0, 1 << 1

READ = _EXECUTE | _READ_FILE | _READ_DIR
LIST = _READ_DIR
ALL = _FIRST_VERSION | _REFER | _TRUNCATE | _IOCTL_DEV


@dataclass(frozen=True, slots=True)
class Allowed:
    """Rights on a file, or on a directory and all below. A path that is not there allows none."""

    path: Path
    rights: int = READ


class _RulesetAttributes(ctypes.Structure):
    _fields_ = [
        ("handled_access_fs", ctypes.c_uint64),
        ("handled_access_net", ctypes.c_uint64),
        ("scoped", ctypes.c_uint64),
    ]


class _PathBeneath(ctypes.Structure):
    _pack_ = 1
    _fields_ = [("allowed_access", ctypes.c_uint64), ("parent_fd", ctypes.c_int32)]


class Ruleset:
    """Rules that are gathered first and then, by `restrict`, hold for ever."""

    def __init__(
        self,
        abi: int,
        allowed: Iterable[Allowed] | None,
        *,
        allows_tcp: bool = True,
        allows_abstract_sockets: bool = True,
    ) -> None:
        """`allowed` is all that may be reached of the file system; None leaves it alone."""
        # Making a block device stands for "nothing": no worker has the capability for it.
        handled = _MAKE_BLOCK if allowed is None else _rights_of(abi)
        scoped = _SIGNALS | (0 if allows_abstract_sockets else _ABSTRACT_SOCKETS)
        attributes = _RulesetAttributes(
            handled,
            0 if allows_tcp or abi < _TCP_ABI else _TCP_BIND_AND_CONNECT,
            scoped if abi >= SCOPE_ABI else 0,
        )
        size = 24 if abi >= SCOPE_ABI else 16 if abi >= _TCP_ABI else 8
        self._descriptor = syscall(LANDLOCK_CREATE_RULESET, ctypes.byref(attributes), size, 0)
        for one in allowed or ():
            self._allow(one.path, one.rights & handled)

    def restrict(self) -> None:
        """From here on, for this thread and all that it starts. Needs no_new_privs."""
        syscall(_RESTRICT_SELF, self._descriptor, 0)
        os.close(self._descriptor)

    def _allow(self, path: Path, rights: int) -> None:
        try:
            descriptor = os.open(path, os.O_PATH | os.O_CLOEXEC)
        except OSError:
            return
        try:
            if not stat.S_ISDIR(os.fstat(descriptor).st_mode):
                rights &= _FOR_FILES
            rule = _PathBeneath(rights, descriptor)
            syscall(_ADD_RULE, self._descriptor, _PATH_BENEATH, ctypes.byref(rule), 0)
        finally:
            os.close(descriptor)


def everything_but(hidden: Iterable[Path], root: Path = Path("/")) -> Iterator[Path]:
    """Paths that together allow all below `root` but these, and the way to them.

    What is made later beside the way to a hidden path is hidden too.
    """
    hidden_paths = {Path(os.path.realpath(path)) for path in hidden}
    way = {parent for path in hidden_paths for parent in path.parents}
    pending = [root]
    while pending:
        directory = pending.pop()
        try:
            entries = list(os.scandir(directory))
        except OSError:
            continue
        for entry in entries:
            path = Path(entry.path)
            if path in way:
                pending.append(path)
            # A link would allow whatever it points to, which has a path of its own.
            elif path not in hidden_paths and not entry.is_symlink():
                yield path


def _rights_of(abi: int) -> int:
    """All rights that a version knows; what it does not know it does not refuse either."""
    rights = _FIRST_VERSION
    for since, right in ((2, _REFER), (3, _TRUNCATE), (5, _IOCTL_DEV)):
        if abi >= since:
            rights |= right
    return rights
