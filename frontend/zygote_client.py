"""The frontend's side of the zygote: ask a stage for a fork, and watch what it forked.

The frontend is the parent of every process here (it is the child subreaper, see
`become_parent`), so each exit status arrives by pidfd, with no relay in between.
"""

import asyncio
import contextlib
import ctypes
import logging
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

import msgpack

from torchkeep.frontend.scratch import ScratchDir
from torchkeep.runtime.errors import ServingError

log = logging.getLogger(__name__)

_PR_SET_CHILD_SUBREAPER = 36
_MAX_REPLY_BYTES = 1 << 16
ORPHAN_LOOK_S = 0.05


class ZygoteError(ServingError):
    """A stage cannot fork, or is gone."""


def become_parent() -> None:
    """Make this process inherit the processes that its descendants leave behind."""
    if ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_CHILD_SUBREAPER)")


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


class StageClient:
    """One stage of the zygote, asked one thing at a time."""

    def __init__(self, name: str, control: socket.socket) -> None:
        self.name = name
        self.child: ChildProcess | None = None
        control.setblocking(False)
        self._control = control
        self._turn = asyncio.Lock()  # replies come in the order of the requests
        self._ready = False

    async def ask(self, request: dict[str, Any], descriptors: Sequence[int] = ()) -> dict[str, Any]:
        """Send a request (and descriptors, which stay the caller's) and wait for the reply."""
        async with self._turn:
            if not self._ready:
                ready = await self._receive()
                log.info("zygote stage %s ready in %.1f s", self.name, ready["ready"])
                self._ready = True
            try:
                socket.send_fds(self._control, [msgpack.packb(request)], list(descriptors))
            except OSError as error:
                raise ZygoteError(f"the {self.name} stage of the zygote is gone") from error
            reply = await self._receive()
        if "error" in reply:
            raise ZygoteError(str(reply["error"]))
        return reply

    def close(self) -> None:
        self._control.close()

    async def _receive(self) -> dict[str, Any]:
        try:
            data = await asyncio.get_running_loop().sock_recv(self._control, _MAX_REPLY_BYTES)
        except OSError as error:
            raise ZygoteError(f"the {self.name} stage of the zygote is gone") from error
        if not data:
            raise ZygoteError(f"the {self.name} stage of the zygote is gone")
        reply: dict[str, Any] = msgpack.unpackb(data)
        return reply


class ZygoteClient:
    """Starts the zygote, grows its stages and forks workers from them."""

    def __init__(self) -> None:
        self._stages: dict[str, StageClient] = {}
        self._growing = asyncio.Lock()

    async def __aenter__(self) -> "ZygoteClient":
        become_parent()
        self._scratch = ScratchDir("torchkeep-zygote-")
        await self._plain()
        return self

    async def __aexit__(self, *_: object) -> None:
        for stage in self._stages.values():
            stage.close()  # the end of its control socket ends a stage
        for stage in self._stages.values():
            if stage.child is not None:
                try:
                    # One that is still importing does not look at its socket yet.
                    await asyncio.wait_for(asyncio.shield(stage.child.exited), timeout=1)
                except TimeoutError:
                    stage.child.kill()
                    await stage.child.exited
        self._scratch.remove()

    async def stage_for(self, handler: str, model_dir: str) -> str:
        """The earliest stage that a handler needs; a wrong guess is only slower."""
        plain = await self._plain()
        return str((await plain.ask({"stage_for": [handler, model_dir]}))["stage"])

    async def warm(self, stage: str) -> None:
        """Have a stage import what it imports before the first worker asks for it."""
        await self._stage(stage)

    async def fork(self, stage: str, worker_id: str, descriptors: Sequence[int]) -> ChildProcess:
        """Fork a worker that owns (connection, stdout, stderr)."""
        client = await self._stage(stage)
        try:
            reply = await client.ask({"fork": worker_id}, descriptors)
        except ZygoteError:
            if client.child is not None and client.child.exited.done():
                self._forget(client)  # the next fork grows a new one
            raise
        return ChildProcess(int(reply["pid"]))

    async def _stage(self, name: str) -> StageClient:
        plain = await self._plain()
        if name == "plain":
            return plain
        async with self._growing:
            known = self._stages.get(name)
            if known is not None and known.child is not None and not known.child.exited.done():
                return known
            if known is not None:
                self._forget(known)
            ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            with theirs:
                reply = await plain.ask({"grow": name}, [theirs.fileno()])
            grown = StageClient(name, ours)
            grown.child = ChildProcess(int(reply["pid"]))
            self._stages[name] = grown
            return grown

    async def _plain(self) -> StageClient:
        async with self._growing:
            known = self._stages.get("plain")
            if known is not None and known.child is not None and not known.child.exited.done():
                return known
            for stage in list(self._stages.values()):
                self._forget(stage)
            ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            with theirs:
                command = [sys.executable, "-P", "-m", "torchkeep.backend"]
                started = subprocess.Popen(  # noqa: ASYNC220 - returns once it has forked
                    [*command, str(theirs.fileno()), str(os.getpid()), str(self._scratch.path)],
                    stdin=subprocess.DEVNULL,
                    pass_fds=[theirs.fileno()],
                )
            started.returncode = 0  # reaped by its pidfd below, not by subprocess
            client = StageClient("plain", ours)
            client.child = ChildProcess(started.pid)
            self._stages["plain"] = client
            return client

    def _forget(self, stage: StageClient) -> None:
        stage.close()
        self._stages.pop(stage.name, None)
