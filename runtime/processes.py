"""What both kinds of process ask of the kernel about their children."""

import ctypes
import os
from contextlib import suppress
from pathlib import Path

_PR_SET_CHILD_SUBREAPER = 36


def become_subreaper() -> None:
    """Inherit the processes that descendants of this one leave behind."""
    if ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_CHILD_SUBREAPER)")


def child_pids() -> list[int]:
    """All children of this process, ended ones too; none where the kernel does not list them."""
    pids: list[int] = []
    for thread in os.listdir("/proc/self/task"):
        with suppress(OSError):  # a thread that has just ended
            children = Path(f"/proc/self/task/{thread}/children").read_text(encoding="ascii")
            pids += map(int, children.split())
    return pids
