"""The frontend's side of the zygote: grow its stages, fork workers, end what they leave."""

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torchkeep.frontend.child_process import ORPHAN_LOOK_S, ChildProcess
from torchkeep.frontend.scratch import ScratchDir
from torchkeep.frontend.stage_client import StageClient, ZygoteError
from torchkeep.runtime.processes import become_subreaper, child_pids

FORK_LIMIT_S = 30.0  # for a stage to answer; one that runs a handler's code may never do
IMPORT_LIMIT_S = 120.0  # for a stage of ours to import torch, from a cold disk or in a crowd
INHERITED_LOOK_S = 5.0

_BACKEND = ("-P", "-m", "torchkeep.backend")

# Which stage each one is forked from.
_GROWN_FROM = {"torch": "plain", "ipex": "torch"}


@dataclass(frozen=True, slots=True)
class Needs:
    """What a handler needs of the process that its worker is forked from."""

    stage: str  # "plain", "torch" or "ipex"
    can_share: bool  # forks of a process that has loaded its model are as good as new loads


class ZygoteClient:
    """Starts the zygote, grows its stages and forks workers from them."""

    def __init__(self, environment: Mapping[str, str] | None = None) -> None:
        self._environment = dict(os.environ if environment is None else environment)
        self._stages: dict[str, StageClient] = {}
        # A lock each: while one stage imports, the others fork.
        self._growing = {name: asyncio.Lock() for name in ("plain", *_GROWN_FROM)}
        self._children: set[int] = set()  # pids that must not be handed out again
        self._not_ours: set[int] = set()  # children of this process that are none of the zygote's
        self._forks_under_way = 0
        self._next_look: asyncio.TimerHandle | None = None

    async def __aenter__(self) -> "ZygoteClient":
        become_subreaper()
        self._not_ours.update(child_pids())
        self._scratch = ScratchDir("torchkeep-zygote-")
        await self._plain()
        if os.getpid() == 1:
            self._reap_inherited()
        return self

    async def __aexit__(self, *_: object) -> None:
        for stage in self._stages.values():
            stage.close()  # the end of its control socket ends a stage
        for stage in self._stages.values():
            await stage.wait_ended()
        self._end_strays()
        if self._next_look is not None:
            self._next_look.cancel()
        self._scratch.remove()

    async def needs_of(self, handler: str, model_dir: str, optimizes_with_ipex: bool) -> Needs:
        """What a handler needs of its worker's parent; a wrong guess is only slower."""
        plain = await self._plain()
        reply = await plain.ask({"needs_of": [handler, model_dir, optimizes_with_ipex]})
        return Needs(str(reply["stage"]), bool(reply["can_share"]))

    async def fork(self, stage: str, worker_id: str, descriptors: Sequence[int]) -> ChildProcess:
        """Fork a worker that owns (connection, stdout, stderr)."""
        client = await self._stage(stage)
        try:
            await self._wait_for_imports(client)
            return await self.fork_from(client, worker_id, descriptors)
        except ZygoteError:
            if client.child is not None and client.child.exited.done():
                self._forget(client)  # the next fork grows a new one
            raise

    async def _wait_for_imports(self, stage: StageClient) -> None:
        try:
            async with asyncio.timeout(IMPORT_LIMIT_S):
                await stage.first_words()
        except TimeoutError:
            raise ZygoteError(
                f"the {stage.name} stage is still importing after {IMPORT_LIMIT_S:g} s"
            ) from None

    async def fork_from(
        self, stage: StageClient, worker_id: str, descriptors: Sequence[int]
    ) -> ChildProcess:
        """The same from a stage that the caller has; it may be a model stage."""
        with self._forking():
            try:
                async with asyncio.timeout(FORK_LIMIT_S):
                    reply = await stage.ask({"fork": worker_id}, descriptors)
            except TimeoutError:
                raise ZygoteError(f"the {stage.name} stage does not answer") from None
            return self._adopt(stage.name, reply)

    def spawn(
        self,
        interpreter: str,
        worker_id: str,
        descriptors: Sequence[int],
        environment: Mapping[str, str],
        libraries: Sequence[str] = (),
    ) -> ChildProcess:
        """A worker that is no fork: libraries of its own must not meet those imported here.

        What it runs on itself is looked for in the directories `libraries` first.
        """
        connection, stdout, stderr = descriptors
        command = [interpreter, *_BACKEND, "worker"]
        started = subprocess.Popen(
            [*command, str(connection), worker_id, str(os.getpid()), *libraries],
            stdin=subprocess.DEVNULL,
            stdout=stdout,
            stderr=stderr,
            pass_fds=[connection],
            env=environment,
        )
        started.returncode = 0  # reaped by its pidfd, not by subprocess
        return self._track(ChildProcess(started.pid))

    def start(
        self,
        command: Sequence[str],
        environment: Mapping[str, str],
        stdout: int,
        stderr: int,
        cwd: Path | None = None,
        stdin: int = subprocess.DEVNULL,
    ) -> ChildProcess:
        """A process of the server's own, which is no worker and no stray of one."""
        started = subprocess.Popen(
            command,
            stdin=stdin,
            stdout=stdout,
            stderr=stderr,
            env=environment,
            cwd=cwd,
            start_new_session=True,
        )
        started.returncode = 0  # reaped by its pidfd, not by subprocess
        return self._track(ChildProcess(started.pid))

    async def can_spawn(self, interpreter: str, libraries: Sequence[str] = ()) -> bool:
        """Whether this Python has what a worker imports."""
        command = [interpreter, *_BACKEND, "check", *libraries]
        check = self.start(command, os.environ, subprocess.DEVNULL, subprocess.DEVNULL)
        try:
            return await asyncio.wait_for(asyncio.shield(check.exited), FORK_LIMIT_S) == 0
        except TimeoutError:
            check.kill()
            await check.exited
            return False

    async def grow_model(self, stage: str, load_file: int, stdout: int, stderr: int) -> StageClient:
        """Fork a stage that loads a model; its first words tell how that went."""
        parent = await self._stage(stage)
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs, self._forking():
            descriptors = [theirs.fileno(), stdout, stderr, load_file]
            try:
                reply = await parent.ask({"grow_model": 0}, descriptors)
                grown = StageClient("model", ours)
                grown.child = self._adopt(stage, reply)
            except BaseException:
                ours.close()
                raise
        return grown

    def _adopt(self, stage: str, reply: Mapping[str, Any]) -> ChildProcess:
        """The new child that a stage names. Raises ZygoteError if it is none.

        A model stage runs a handler's code, and could name a process that is not its own. As
        whoever is adopted is killed in the end, none of the server's own may be.
        """
        pid = reply.get("pid")
        if type(pid) is not int or pid <= 0 or pid in self._children | self._not_ours:
            raise ZygoteError(f"the {stage} stage named no new process")
        try:
            os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            return self._track(ChildProcess(pid))
        except (ChildProcessError, ProcessLookupError) as error:
            raise ZygoteError(f"the {stage} stage named no child of ours") from error

    def _track(self, child: ChildProcess) -> ChildProcess:
        self._children.add(child.pid)
        child.exited.add_done_callback(lambda _: self._has_ended(child.pid))
        return child

    def _has_ended(self, pid: int) -> None:
        self._children.discard(pid)
        self._end_strays()

    @contextlib.contextmanager
    def _forking(self) -> Iterator[None]:
        """Until its reply is read, a new child of ours is one that nobody knows."""
        self._forks_under_way += 1
        try:
            yield
        except BaseException:
            # Perhaps it was forked, and stays unknown: then it is a stray.
            asyncio.get_running_loop().call_later(ORPHAN_LOOK_S, self._end_strays)
            raise
        finally:
            self._forks_under_way -= 1

    def _end_strays(self) -> None:
        """Kill what a worker started in a session of its own and left behind when it ended."""
        strays = set(child_pids()) - self._children - self._not_ours
        if not self._forks_under_way:
            for pid in strays:
                with contextlib.suppress(ProcessLookupError, ChildProcessError):
                    os.kill(pid, signal.SIGKILL)
                    os.waitpid(pid, os.WNOHANG)
        if strays:
            asyncio.get_running_loop().call_later(ORPHAN_LOOK_S, self._end_strays)

    def _reap_inherited(self) -> None:
        """The first process of a container inherits what commands run beside it leave behind."""
        if not self._forks_under_way:
            for pid in set(child_pids()) - self._children - self._not_ours:
                with contextlib.suppress(ChildProcessError):
                    os.waitpid(pid, os.WNOHANG)
        loop = asyncio.get_running_loop()
        self._next_look = loop.call_later(INHERITED_LOOK_S, self._reap_inherited)

    async def _stage(self, name: str) -> StageClient:
        if name == "plain":
            return await self._plain()
        parent = await self._stage(_GROWN_FROM[name])
        async with self._growing[name]:
            known = self._stages.get(name)
            if known is not None and known.child is not None and not known.child.exited.done():
                return known
            if known is not None:
                self._forget(known)
            ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            with theirs, self._forking():
                reply = await parent.ask({"grow": name}, [theirs.fileno()])
                grown = StageClient(name, ours)
                grown.child = self._adopt(name, reply)
            self._stages[name] = grown
            return grown

    async def _plain(self) -> StageClient:
        async with self._growing["plain"]:
            known = self._stages.get("plain")
            if known is not None and known.child is not None and not known.child.exited.done():
                return known
            for stage in list(self._stages.values()):
                self._forget(stage)
            ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            with theirs:
                command = [sys.executable, *_BACKEND, "zygote"]
                started = subprocess.Popen(  # noqa: ASYNC220 - returns once it has forked
                    [*command, str(theirs.fileno()), str(os.getpid()), str(self._scratch.path)],
                    stdin=subprocess.DEVNULL,
                    pass_fds=[theirs.fileno()],
                    env=self._environment,
                )
            started.returncode = 0  # reaped by its pidfd below, not by subprocess
            client = StageClient("plain", ours)
            client.child = self._track(ChildProcess(started.pid))
            self._stages["plain"] = client
            return client

    def _forget(self, stage: StageClient) -> None:
        stage.close()
        self._stages.pop(stage.name, None)
