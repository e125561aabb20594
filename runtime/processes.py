"""What both kinds of process ask of the kernel about their children."""

import os
import resource
import signal
from contextlib import suppress
from pathlib import Path

from torchkeep.runtime.kernel import prctl

_PR_SET_DUMPABLE = 4
_PR_SET_CHILD_SUBREAPER = 36
STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)  # a server drains and ends


def become_subreaper() -> None:
    """Inherit the processes that descendants of this one leave behind."""
    prctl(_PR_SET_CHILD_SUBREAPER, 1)


def keep_memory_private() -> None:
    """No core dumps, and no process of the same user may trace this one or read its memory.

    Nor its descriptors and environment in /proc. Root still may.
    """
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    prctl(_PR_SET_DUMPABLE, 0)


def child_pids() -> list[int]:
    """All children of this process, ended ones too; none where the kernel does not list them."""
    pids: list[int] = []
    for thread in os.listdir("/proc/self/task"):
        with suppress(OSError):  # a thread that has just ended
            children = Path(f"/proc/self/task/{thread}/children").read_text(encoding="ascii")
            pids += map(int, children.split())
    return pids
