"""The zygote seen from the frontend: real processes, real sockets."""

import asyncio
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from torchkeep.frontend.child_process import ChildProcess
from torchkeep.frontend.stage_client import ZygoteError
from torchkeep.frontend.zygote_client import ZygoteClient
from torchkeep.runtime.messages import Load, Loaded, Predict, Prediction, Predictions, RequestInput
from torchkeep.runtime.processes import child_pids
from torchkeep.runtime.wire import Wire

SECRET = bytes(range(32))
HANDLER = """
import os, random, json, sys

def drawn():
    # one number of every generator that this process has
    numbers = [random.random()]
    if "numpy" in sys.modules:
        numbers.append(sys.modules["numpy"].random.random())
    if "torch" in sys.modules:
        numbers.append(sys.modules["torch"].rand(1).item())
    return numbers

def handle(data, context):
    if data is None:
        return
    out = []
    for row in data:
        out.append({
            "fds": sorted(int(n) for n in os.listdir("/proc/self/fd")),
            "drawn": drawn(),
            "modules": [m for m in ("torch", "starlette", "uvicorn") if m in sys.modules],
            "ppid": os.getppid(),
            "pid": os.getpid(),
            "sid": os.getsid(0) == os.getpid(),
            "core": __import__("resource").getrlimit(__import__("resource").RLIMIT_CORE)[0],
        })
    return out
"""


def load(model_dir: Path) -> Load:
    (model_dir / "h.py").write_text(HANDLER)
    environment = {k: v for k, v in os.environ.items() if k.startswith(("PATH", "COV", "HOME"))}
    return Load("m", "1.0", str(model_dir), "h.py", "", 1, True, True, environment)


class Peer:
    """The frontend's end of a worker's connection, blocking, for tests."""

    def __init__(self, worker_id: str) -> None:
        self.ours, self.theirs = socket.socketpair()
        self.ours.settimeout(30)
        self.ours.sendall(SECRET)
        self.wire = Wire("frontend", SECRET, worker_id)
        self.null = os.open(os.devnull, os.O_WRONLY)

    @property
    def descriptors(self) -> list[int]:
        return [self.theirs.fileno(), self.null, self.null]

    def exchange(self, message: Any) -> Any:
        self.ours.sendall(b"".join(bytes(part) for part in self.wire.seal(message)))
        while True:
            count = self.ours.recv_into(self.wire.buffer())
            assert count, "the worker closed its connection"
            if messages := self.wire.received(count):
                return messages[0]

    def close(self) -> None:
        self.ours.close()
        self.theirs.close()
        os.close(self.null)


async def grown(zygote: ZygoteClient, stage: str) -> None:
    """Have the stage, and wait until it has imported what it imports."""
    await (await zygote._stage(stage)).first_words()


async def forked(zygote: ZygoteClient, stage: str, worker_id: str) -> tuple[Peer, ChildProcess]:
    peer = Peer(worker_id)
    child = await zygote.fork(stage, worker_id, peer.descriptors)
    peer.theirs.close()
    return peer, child


def facts(peer: Peer) -> dict[str, Any]:
    import json

    reply = peer.exchange(Predict([RequestInput("r", {}, [])]))
    assert isinstance(reply, Predictions)
    assert reply.status == 200, reply
    (item,) = reply.items
    assert isinstance(item, Prediction)
    found: dict[str, Any] = json.loads(bytes(item.body))
    return found


def peer_pid(peer: Peer) -> int:
    pid: int = facts(peer)["pid"]
    return pid


def test_a_forked_worker_owns_only_its_socket_and_is_our_child(tmp_path: Path) -> None:
    async def scenario() -> None:
        secret_file = os.open(tmp_path, os.O_RDONLY)  # a descriptor nobody should inherit
        os.set_inheritable(secret_file, True)
        async with ZygoteClient() as zygote:
            peer, child = await forked(zygote, "plain", "9000")
            assert peer.exchange(load(tmp_path)) == Loaded(200, "loaded model m")
            found = facts(peer)
            # stdio, the connection, and the descriptor that lists the directory
            assert len(found["fds"]) <= 5, found
            assert found["ppid"] == os.getpid()
            assert found["sid"] is True
            assert found["core"] == 0
            assert found["modules"] == []
            peer.close()
            assert await child.exited == 0
        os.close(secret_file)

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("stage", "generators"), [("plain", 1), pytest.param("torch", 3, marks=pytest.mark.torch)]
)
def test_siblings_draw_different_random_numbers(
    stage: str, generators: int, tmp_path: Path
) -> None:
    async def scenario() -> None:
        async with ZygoteClient() as zygote:
            drawn = []
            for worker_id in ("9000", "9001", "9002"):
                peer, child = await forked(zygote, stage, worker_id)
                peer.exchange(load(tmp_path))
                drawn.append(facts(peer)["drawn"])
                peer.close()
                await child.exited
            # Python's own; with torch, numpy's and torch's too.
            numbers_of_each = list(zip(*drawn, strict=True))
            assert [len(set(numbers)) for numbers in numbers_of_each] == [3] * generators

    asyncio.run(scenario())


@pytest.mark.torch
def test_the_torch_stage_forks_workers_that_have_torch(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with ZygoteClient() as zygote:
            peer, child = await forked(zygote, "torch", "9000")
            assert peer.exchange(load(tmp_path)).status == 200
            assert facts(peer)["modules"] == ["torch"]
            peer.close()
            assert await child.exited == 0

    asyncio.run(scenario())


def test_a_wrong_secret_ends_the_worker(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with ZygoteClient() as zygote:
            peer, child = await forked(zygote, "plain", "9000")
            peer.wire = Wire("frontend", bytes(32), "9000")
            with pytest.raises((AssertionError, ConnectionError)):
                peer.exchange(load(tmp_path))
            assert await child.exited == 1
            peer.close()

    asyncio.run(scenario())


@pytest.mark.parametrize("stage", ["plain", "torch"])
def test_a_dead_stage_is_grown_again(stage: str, tmp_path: Path) -> None:
    async def scenario() -> None:
        async with ZygoteClient() as zygote:
            await grown(zygote, stage)
            dead = zygote._stages[stage].child
            assert dead is not None
            dead.kill()
            await dead.exited
            peer, child = await forked(zygote, stage, "9000")
            assert peer.exchange(load(tmp_path)).status == 200
            peer.close()
            await child.exited

    asyncio.run(scenario())


def test_a_stage_that_dies_while_it_is_asked_is_an_error_not_a_hang() -> None:
    async def scenario() -> None:
        async with ZygoteClient() as zygote:
            await zygote.needs_of("h.py", "/", False)
            child = zygote._stages["plain"].child
            assert child is not None
            os.kill(child.pid, signal.SIGSTOP)
            asking = asyncio.ensure_future(zygote.needs_of("h.py", "/", False))
            await asyncio.sleep(0)
            child.kill()
            with pytest.raises(ZygoteError):
                await asking

    asyncio.run(scenario())


def test_a_fork_that_nobody_waits_for_any_more_confuses_no_other(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with ZygoteClient() as zygote:
            await grown(zygote, "plain")
            for number in range(5):
                given_up = Peer(f"{number}")
                forking = asyncio.ensure_future(
                    zygote.fork("plain", f"{number}", given_up.descriptors)
                )
                await asyncio.sleep(0)  # far enough for the request to be sent
                await asyncio.sleep(0)
                forking.cancel()
                await asyncio.wait([forking])
                given_up.close()
                peer, child = await forked(zygote, "plain", "9000")
                assert peer.exchange(load(tmp_path)).status == 200
                assert peer_pid(peer) == child.pid
                peer.close()
                assert await child.exited == 0
            while len(child_pids()) > 1:  # noqa: ASYNC110 - the stage; strays have been ended
                await asyncio.sleep(0.01)

    async def bounded() -> None:
        async with asyncio.timeout(30):
            await scenario()

    asyncio.run(bounded())


def test_a_stage_cannot_name_a_process_that_is_not_its_own() -> None:
    of_the_server = subprocess.Popen(["sleep", "60"])  # as the janitor is

    async def scenario() -> None:
        async with ZygoteClient() as zygote:
            plain = zygote._stages["plain"].child
            assert plain is not None
            for pid in (of_the_server.pid, plain.pid, os.getpid(), 1, 0, -1, True, "1", None):
                with pytest.raises(ZygoteError, match="named no"):
                    zygote._adopt("model", {"pid": pid})

    try:
        asyncio.run(scenario())
        assert of_the_server.poll() is None
    finally:
        of_the_server.kill()
        of_the_server.wait()


def test_the_zygote_leaves_no_process(poll: Callable[..., Any]) -> None:
    async def scenario() -> list[psutil.Process]:
        async with ZygoteClient() as zygote:
            before = set(psutil.Process().children(recursive=True))
            await grown(zygote, "torch")
            return [*(set(psutil.Process().children(recursive=True)) - before)]

    family = asyncio.run(scenario())
    assert family
    assert poll(lambda: not any(p.is_running() for p in family), "the zygote ended")


AS_FIRST_PROCESS = """
import asyncio, os, subprocess
from torchkeep.frontend import zygote_client
from torchkeep.runtime.processes import child_pids

zygote_client.INHERITED_LOOK_S = 0.05

async def scenario():
    assert os.getpid() == 1
    async with asyncio.timeout(30), zygote_client.ZygoteClient():
        (stage,) = child_pids()
        for _ in range(2):
            subprocess.run(["sh", "-c", "sleep 0.1 & exit"], check=True)
            assert len(child_pids()) == 2
            while child_pids() != [stage]:
                await asyncio.sleep(0.01)

asyncio.run(scenario())
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root makes a process the first one")
def test_the_first_process_of_a_container_reaps_what_it_inherits() -> None:
    """Of a command that was run beside it, and did not wait for what it started."""
    namespaces = ["unshare", "--pid", "--mount-proc", "--fork", "--kill-child"]
    subprocess.run([*namespaces, sys.executable, "-c", AS_FIRST_PROCESS], check=True, timeout=60)
