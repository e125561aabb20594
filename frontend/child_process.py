"""A child of this process, watched by pidfd and reaped once.

The frontend is the parent of every process here (it is the child subreaper, see
`become_subreaper`), so each exit status arrives by pidfd, with no relay in between.
"""

import asyncio
import contextlib
import os
import signal

ORPHAN_LOOK_S = 0.05


class ChildProcess:
    """A child of this process, reaped once; `exited` resolves to its exit status.

    The status is that of `subprocess`: 0 to 255, or minus the number of a signal.
    """

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self._loop = asyncio.get_running_loop()
        self.exited: asyncio.Future[int] = self._loop.create_future()
        self._pidfd = os.pidfd_open(pid)
        self._loop.add_reader(self._pidfd, self._reap)

    def kill(self) -> None:
        """SIGKILL, to the process and to whatever it started in its own session."""
        if not self.exited.done():
            signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)

    def _reap(self) -> None:
        self._loop.remove_reader(self._pidfd)
        os.close(self._pidfd)
        # A worker leads a session of its own: what it started and left behind goes with it,
        # before its number is free for another process.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)
        try:
            _, status = os.waitpid(self.pid, 0)
        except ChildProcessError:  # taken as an orphan of the group it was forked in
            status = signal.SIGKILL
        self._reap_orphans()
        if not self.exited.done():
            self.exited.set_result(os.waitstatus_to_exitcode(status))

    def _reap_orphans(self) -> None:
        """Take leave of what the worker had started: killed above, ours now as subreaper."""
        try:
            while os.waitpid(-self.pid, os.WNOHANG)[0]:
                pass
        except ChildProcessError:
            return
        self._loop.call_later(ORPHAN_LOOK_S, self._reap_orphans)  # one of them still dies
