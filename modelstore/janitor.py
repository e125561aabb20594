"""Clears memory of unpacked secrets when the server dies without a word.

A server removes what it unpacked; one that was killed cannot, and the next one may never start.
So a second process waits at the other end of a pipe: a byte on it says goodbye, its end without
one means that the server is dead, and then everything is swept that no living server has locked.
"""

import contextlib
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from torchkeep.modelstore.unpack_area import UnpackArea

READY, GOODBYE = b"+", b"-"
DYING_S = 30.0  # the kernel may take its time to free a large process
CLEARING_S = 30.0  # workers end by themselves, and may write until they do
LOOK_AGAIN_S = 0.1


class Janitor:
    """Runs while the server does; `roots` are the places where archives are unpacked."""

    def __init__(self, roots: Sequence[Path]) -> None:
        self.roots = roots
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> "Janitor":
        command = [sys.executable, "-P", "-m", __name__, str(os.getpid())]
        # A session of its own: Ctrl-C in the terminal is meant for the server.
        self._process = subprocess.Popen(
            [*command, *map(str, self.roots)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,
        )
        assert self._process.stdout is not None, "asked for"
        self._process.stdout.read(len(READY))
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process is not None, "entered before"
        with contextlib.suppress(BrokenPipeError):
            self._process.communicate(GOODBYE)
        self._process.wait()


def main(server: int, roots: Sequence[Path]) -> None:
    """The other process: wait, and clear up if need be."""
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # sent to all of us; the server ends first
    os.write(sys.stdout.fileno(), READY)
    with contextlib.suppress(ProcessLookupError):
        process = os.pidfd_open(server)
        if os.read(sys.stdin.fileno(), 1) == GOODBYE:
            return
        # Locks are let go one after the other; all of them are when the process has ended.
        poll = select.poll()
        poll.register(process, select.POLLIN)
        poll.poll(DYING_S * 1000)
    end = time.monotonic() + CLEARING_S
    areas = [UnpackArea(root) for root in roots]
    while sum(area.sweep() for area in areas) and time.monotonic() < end:
        time.sleep(LOOK_AGAIN_S)


if __name__ == "__main__":
    main(int(sys.argv[1]), [Path(root) for root in sys.argv[2:]])
