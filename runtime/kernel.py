"""What this kernel offers to confine a process with: asked once, changed by nothing."""

import ctypes
import errno
import os
import platform
from dataclasses import dataclass

LANDLOCK_CREATE_RULESET = 444  # the same on every architecture, as all numbers from 424 on
_LANDLOCK_VERSION = 1 << 0
_SECCOMP = {"x86_64": 317, "aarch64": 277}
_SECCOMP_GET_ACTION_AVAIL = 2
_SECCOMP_RET_KILL_PROCESS = 0x80000000

STRICT_ABI = 3  # of Landlock (Linux 6.2): before it, whoever may read a file may truncate it
SCOPE_ABI = 6  # signals and abstract sockets (Linux 6.12)

_libc = ctypes.CDLL(None, use_errno=True)


def syscall(number: int, *arguments: object) -> int:
    """A system call that libc has no function for. Raises OSError."""
    # Each as wide as a register: ctypes would hand over an int as one of 32 bits.
    wide = [ctypes.c_long(one) if isinstance(one, int) else one for one in arguments]
    _libc.syscall.restype = ctypes.c_long
    result: int = _libc.syscall(ctypes.c_long(number), *wide)
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return result


def prctl(option: int, *values: int) -> int:
    """Raises OSError."""
    padded = [*values, 0, 0, 0, 0][:4]
    result: int = _libc.prctl(option, *(ctypes.c_ulong(value) for value in padded))
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return result


def seccomp(operation: int, flags: int, argument: object) -> None:
    """Raises OSError; ENOSYS on a machine whose number of the call is not known here."""
    number = _SECCOMP.get(platform.machine())
    if number is None:
        raise OSError(errno.ENOSYS, f"no system call filter for {platform.machine()}")
    syscall(number, operation, flags, argument)


@dataclass(frozen=True, slots=True)
class KernelLayers:
    """What the sandbox can rest on here."""

    landlock_abi: int  # 0 where there is none
    has_filter: bool  # of system calls: seccomp

    @property
    def missing_for_strict(self) -> str:
        """Why `sandbox=strict` cannot be kept here; empty where it can."""
        missing = []
        if self.landlock_abi < STRICT_ABI:
            found = f"version {self.landlock_abi}" if self.landlock_abi else "none"
            missing.append(f"Landlock from version {STRICT_ABI} on (Linux 6.2; here: {found})")
        if not self.has_filter:
            missing.append("system call filters (seccomp)")
        return f"sandbox=strict needs {' and '.join(missing)}" if missing else ""

    @property
    def missing_for_standard(self) -> str:
        """What `sandbox=standard` does without here, in one line; empty where nothing."""
        if not self.landlock_abi:
            return "no Landlock: workers can reach the files of other models"
        if self.landlock_abi < SCOPE_ABI:
            return (
                f"Landlock version {self.landlock_abi} has no scope of signals (Linux 6.12):"
                " a worker can end other processes of its user"
            )
        return ""

    def describe(self) -> str:
        landlock = f"Landlock {self.landlock_abi}" if self.landlock_abi else "no Landlock"
        seccomp = "seccomp" if self.has_filter else "no seccomp"
        most = "strict" if not self.missing_for_strict else "standard"
        return f"{landlock}, {seccomp}: up to sandbox={most}"


def kernel_layers() -> KernelLayers:
    return KernelLayers(_landlock_abi(), _has_filter())


def _landlock_abi() -> int:
    try:
        return syscall(LANDLOCK_CREATE_RULESET, None, 0, _LANDLOCK_VERSION)
    except OSError:
        return 0


def _has_filter() -> bool:
    action = ctypes.c_uint32(_SECCOMP_RET_KILL_PROCESS)
    try:
        seccomp(_SECCOMP_GET_ACTION_AVAIL, 0, ctypes.byref(action))
    except OSError:
        return False
    return True
