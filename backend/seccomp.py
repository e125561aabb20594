"""The system calls that `sandbox=strict` refuses, as a filter that the kernel runs.

Most of torch is system calls that nobody listed, so this one names what is refused: every way
out to a network or another process that Landlock does not see, and the parts of the kernel
that a model has no use for and where its bugs have been.
"""

import ctypes
import errno
import os
import platform
import socket
import struct
from collections.abc import Sequence
from dataclasses import dataclass

from torchkeep.runtime.kernel import seccomp

_SET_MODE_FILTER = 1
_TSYNC = 1  # for every thread of the process

_ALLOW, _KILL, _ERRNO = 0x7FFF0000, 0x80000000, 0x00050000
_REFUSE = _ERRNO | errno.EPERM
_NUMBER_AT, _MACHINE_AT, _ARGUMENTS_AT = 0, 4, 16  # in struct seccomp_data
_LOAD, _AND, _EQUAL, _AT_LEAST, _ANY_BIT, _RETURN = 0x20, 0x54, 0x15, 0x35, 0x45, 0x06

_NETLINK_ROUTE = 0  # not in every build of Python's socket module
_NAMESPACES = 0x7E020000  # CLONE_NEW*
_SOCKET_TYPE = 0xF  # of a type that may hold SOCK_CLOEXEC and SOCK_NONBLOCK too
_X32 = 0x40000000  # marks a call of x86-64's 32-bit sibling, whose numbers differ

# x86-64, aarch64; None where the machine has no such call.
_REFUSED: dict[str, tuple[int | None, int | None]] = {
    # other processes
    "ptrace": (101, 117),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "process_madvise": (440, 440),
    "process_mrelease": (448, 448),
    "kcmp": (312, 272),
    "pidfd_getfd": (438, 438),
    # sockets but those of a pair, which are connected from the start
    "connect": (42, 203),
    "bind": (49, 200),
    "listen": (50, 201),
    # files past their paths, and the names of files that others make
    "open_by_handle_at": (304, 265),
    "fanotify_init": (300, 262),
    "inotify_init": (253, None),
    "inotify_init1": (294, 26),
    # memory and queues that are found by a number or a name of their own
    "shmget": (29, 194),
    "semget": (64, 190),
    "msgget": (68, 186),
    "mq_open": (240, 180),
    # namespaces and mounts
    "unshare": (272, 97),
    "setns": (308, 268),
    "mount": (165, 40),
    "umount2": (166, 39),
    "pivot_root": (155, 41),
    "chroot": (161, 51),
    "open_tree": (428, 428),
    "move_mount": (429, 429),
    "fsopen": (430, 430),
    "fsconfig": (431, 431),
    "fsmount": (432, 432),
    "fspick": (433, 433),
    "mount_setattr": (442, 442),
    # much kernel for little use
    "bpf": (321, 280),
    "io_uring_setup": (425, 425),
    "io_uring_enter": (426, 426),
    "io_uring_register": (427, 427),
    "userfaultfd": (323, 282),
    "perf_event_open": (298, 241),
    "add_key": (248, 217),
    "request_key": (249, 218),
    "keyctl": (250, 219),
    # the machine itself
    "init_module": (175, 105),
    "finit_module": (313, 273),
    "delete_module": (176, 106),
    "kexec_load": (246, 104),
    "kexec_file_load": (320, 294),
    "reboot": (169, 142),
    "swapon": (167, 224),
    "swapoff": (168, 225),
    "acct": (163, 89),
    "quotactl": (179, 60),
    "syslog": (103, 116),
    "settimeofday": (164, 170),
    "clock_settime": (227, 112),
    "clock_adjtime": (305, 266),
    "adjtimex": (159, 171),
    "iopl": (172, None),
    "ioperm": (173, None),
    "modify_ldt": (154, None),
}
# Refused by their arguments, or in another way.
_CLONE = (56, 220)
_CLONE3 = (435, 435)
_SOCKET = (41, 198)
_SOCKETPAIR = (53, 199)
_PRLIMIT = (302, 261)  # whose first argument names a process, 0 the one that calls
# Signals, where Landlock has no scope for them: to this process alone.
_KILL_CALLS = ((62, 129), (234, 131), (129, 138), (297, 240))  # kill, tgkill, rt_*sigqueueinfo
_ANONYMOUS_KILL = ((200, 130), (424, 424))  # tkill, pidfd_send_signal: no process id to look at


@dataclass(frozen=True, slots=True)
class _Machine:
    audit: int  # how the kernel names the calling convention
    column: int  # in the tables above


_MACHINES = {"x86_64": _Machine(0xC000003E, 0), "aarch64": _Machine(0xC00000B7, 1)}


def refuse_system_calls(
    *, allows_network: bool, confines_signals: bool, lists_interfaces: bool = False
) -> None:
    """For every thread of this process, and all that it starts, for ever. Raises OSError."""
    program = filter_program(
        platform.machine(),
        allows_network=allows_network,
        confines_signals=confines_signals,
        lists_interfaces=lists_interfaces,
    )
    instructions = ctypes.create_string_buffer(program, len(program))
    # struct sock_fprog: a count, padded to the pointer's place
    head = struct.pack("@HxxxxxxQ", len(program) // 8, ctypes.addressof(instructions))
    seccomp(_SET_MODE_FILTER, _TSYNC, ctypes.create_string_buffer(head, len(head)))


def filter_program(
    machine: str,
    *,
    allows_network: bool,
    confines_signals: bool,
    lists_interfaces: bool = False,
) -> bytes:
    """The filter for a machine, in the kernel's instructions (struct sock_filter)."""
    known = _MACHINES[machine]
    column = known.column
    code = [(_LOAD, 0, 0, _MACHINE_AT), (_EQUAL, 1, 0, known.audit), (_RETURN, 0, 0, _KILL)]
    code.append((_LOAD, 0, 0, _NUMBER_AT))
    if machine == "x86_64":
        code += [(_AT_LEAST, 0, 1, _X32), (_RETURN, 0, 0, _REFUSE)]
    refused = [numbers[column] for numbers in _REFUSED.values()]
    if allows_network:
        networking = {_REFUSED[name][column] for name in ("connect", "bind", "listen")}
        refused = [number for number in refused if number not in networking]
    if confines_signals:
        refused += [numbers[column] for numbers in _ANONYMOUS_KILL]
    for number in refused:
        if number is not None:
            code += _when(number, [(_RETURN, 0, 0, _REFUSE)])
    # libc then uses `clone`, whose flags a filter can see.
    code += _when(_CLONE3[column], [(_RETURN, 0, 0, _ERRNO | errno.ENOSYS)])
    code += _when(
        _CLONE[column],
        [
            (_LOAD, 0, 0, _ARGUMENTS_AT),
            (_ANY_BIT, 0, 1, _NAMESPACES),
            (_RETURN, 0, 0, _REFUSE),
            (_RETURN, 0, 0, _ALLOW),
        ],
    )
    families = [socket.AF_INET, socket.AF_INET6] if allows_network else []
    netlink = _route_only() if lists_interfaces and allows_network else []
    code += _when(_SOCKET[column], [*netlink, *_only(families)])
    code += _when(_SOCKETPAIR[column], _only([socket.AF_UNIX], _stream_only()))
    code += _when(_PRLIMIT[column], _only([0]))
    if confines_signals:
        for numbers in _KILL_CALLS:
            code += _when(numbers[column], _only([os.getpid(), 0]))
    code.append((_RETURN, 0, 0, _ALLOW))
    return b"".join(struct.pack("=HBBI", *instruction) for instruction in code)


_Code = list[tuple[int, int, int, int]]


def _when(number: int, block: _Code) -> _Code:
    """The block, which ends by itself, for one call; the number is loaded before and after."""
    return [(_EQUAL, 0, len(block), number), *block]


def _only(values: Sequence[int], then: _Code | None = None) -> _Code:
    """Go on (or allow) where the first argument is one of these values; refuse all others."""
    block: _Code = [(_LOAD, 0, 0, _ARGUMENTS_AT)]
    for place, value in enumerate(values):
        block.append((_EQUAL, len(values) - place, 0, value))
    return [*block, (_RETURN, 0, 0, _REFUSE), *(then or [(_RETURN, 0, 0, _ALLOW)])]


def _route_only() -> _Code:
    """Allow netlink sockets that tell of network interfaces, and refuse all other netlink."""
    return [
        (_LOAD, 0, 0, _ARGUMENTS_AT),
        (_EQUAL, 0, 4, socket.AF_NETLINK),
        (_LOAD, 0, 0, _ARGUMENTS_AT + 16),
        (_EQUAL, 0, 1, _NETLINK_ROUTE),
        (_RETURN, 0, 0, _ALLOW),
        (_RETURN, 0, 0, _REFUSE),
    ]


def _stream_only() -> _Code:
    # A pair of datagram sockets could send to any address that it names.
    return [
        (_LOAD, 0, 0, _ARGUMENTS_AT + 8),
        (_AND, 0, 0, _SOCKET_TYPE),
        (_EQUAL, 0, 1, socket.SOCK_STREAM),
        (_RETURN, 0, 0, _ALLOW),
        (_RETURN, 0, 0, _REFUSE),
    ]
