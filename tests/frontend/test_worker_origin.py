"""Workers forked from a process that has loaded their model: real processes throughout."""

import asyncio
import itertools
import json
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest
from ground import worker_ground
from waiting import until

from torchkeep.frontend.model_spec import ModelSpec
from torchkeep.frontend.served_model import ServedModel
from torchkeep.frontend.stage_client import StageClient, ZygoteError
from torchkeep.frontend.zygote_client import ZygoteClient
from torchkeep.runtime.cores import Cores
from torchkeep.runtime.messages import RequestInput

# One thread for each worker: what sharing asks for.
ONE_CORE = Cores((0,), (0,), 0.5)

HANDLER = """
import json, os, random, sys, threading, time
from pathlib import Path

loader = os.getpid()

def hang():
    "In a fork of a fork of the process that loaded, as its workers are."
    if os.getpid() != loader and "first" in hang.__dict__:
        time.sleep(60)
    hang.first = True

WEIGHTS = os.urandom(16).hex()  # what only forks of one process have in common

class Handler:
    def initialize(self, context):
        with open("loads", "a") as file:
            file.write("x")
        {initialize}
    def handle(self, data, context):
        return [json.dumps({{
            "weights": WEIGHTS, "random": random.random(), "pid": os.getpid(),
            "fds": len(os.listdir("/proc/self/fd")), "group": os.getpgid(0) == os.getpid(),
            "cwd": os.getcwd(), "mine": os.environ.get("MINE"),
        }})] * len(data)
"""


class Dir:
    def __init__(self, path: Path) -> None:
        self.path = path

    def close(self) -> None:
        pass


@asynccontextmanager
async def serving(
    path: Path,
    initialize: str = "pass",
    cores: Cores = ONE_CORE,
    interpreter: str | None = None,
    **spec: Any,
) -> AsyncIterator[ServedModel]:
    (path / "h.py").write_text(HANDLER.format(initialize=initialize))
    async with asyncio.timeout(60), ZygoteClient() as zygote:
        ground = worker_ground(
            zygote,
            environment=lambda: {**os.environ, "MINE": "mine"},
            cores=cores,
            interpreters={"python": interpreter} if interpreter else {},
        )
        asked = ModelSpec(
            **{"name": "m", "version": "1.0", "url": "m", "handler": "h.py"}
            | {"shared_weights": True}
            | spec
        )
        model = ServedModel(asked, Dir(path), ground)  # type: ignore[arg-type]
        try:
            yield model
        finally:
            await model.close()


def run(scenario: Callable[[], Awaitable[None]]) -> None:
    asyncio.run(scenario())  # type: ignore[arg-type]


_ids = itertools.count()


async def ask(model: ServedModel) -> dict[str, Any]:
    job = model.submit(RequestInput(f"r{next(_ids)}", {}, []))
    found: dict[str, Any] = json.loads(bytes((await job.reply()).body))
    return found


async def ask_each(model: ServedModel) -> list[dict[str, Any]]:
    """An answer of each worker."""
    answers: dict[int, dict[str, Any]] = {}
    while len(answers) < len(model.workers):
        answer = await ask(model)
        answers[answer["pid"]] = answer
        await asyncio.sleep(0)
    return list(answers.values())


def loads(path: Path) -> int:
    return len((path / "loads").read_text())


def processes() -> list[psutil.Process]:
    return [one for one in psutil.Process().children() if one.status() != psutil.STATUS_ZOMBIE]


def test_forks_share_one_load_and_nothing_else(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with serving(tmp_path) as model:
            assert await model.scale(2, 2) == 200
            assert await model.scale(3, 3) == 200
            answers = await ask_each(model)
            assert loads(tmp_path) == 1
            assert len({one["weights"] for one in answers}) == 1
            assert len({one["random"] for one in answers}) == 3
            assert {one["pid"] for one in answers} == {worker.pid for worker in model.workers}
            assert all(one["fds"] <= 5 for one in answers), answers
            assert all(one["group"] for one in answers)
            assert {one["cwd"] for one in answers} == {str(tmp_path)}
            assert {one["mine"] for one in answers} == {"mine"}

    run(scenario)


def test_a_worker_that_dies_is_forked_again_without_a_load(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with serving(tmp_path) as model:
            assert await model.scale(1, 1) == 200
            first = await ask(model)
            (worker,) = model.workers
            os.kill(worker.pid, signal.SIGKILL)
            await until(lambda: worker.pid != first["pid"] and worker.is_ready)
            second = await ask(model)
            assert second["weights"] == first["weights"]
            assert loads(tmp_path) == 1

    run(scenario)


def test_a_stage_that_died_loads_again(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with serving(tmp_path) as model:
            assert await model.scale(1, 1) == 200
            first = await ask(model)
            stage = model._origin._stage
            assert stage is not None
            assert stage.client.child is not None
            stage.client.child.kill()
            await stage.client.child.exited
            assert (await ask(model))["pid"] == first["pid"]
            assert await model.scale(2, 2) == 200
            assert loads(tmp_path) == 2

    run(scenario)


def test_no_sharing_where_it_is_switched_off_or_unknown(tmp_path: Path) -> None:
    async def scenario(shared_weights: bool | None, cores: Cores) -> None:
        (tmp_path / "loads").write_text("")
        async with serving(tmp_path, shared_weights=shared_weights, cores=cores) as model:
            assert await model.scale(2, 2) == 200
            assert loads(tmp_path) == 2
            assert len({one["weights"] for one in await ask_each(model)}) == 2

    asyncio.run(scenario(False, ONE_CORE))
    asyncio.run(scenario(None, ONE_CORE))
    asyncio.run(scenario(True, Cores((0, 1, 2, 3), (0, 1, 2, 3))))  # two threads each


def test_a_model_scaled_to_zero_keeps_no_process(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with serving(tmp_path) as model:
            assert await model.scale(1, 1) == 200
            model.begin_scale(0, 0)
            await until(lambda: len(processes()) == 1)  # the zygote's first stage
            assert await model.scale(1, 1) == 200
            assert loads(tmp_path) == 2

    run(scenario)


@pytest.mark.parametrize(
    ("initialize", "reason"),
    [
        ("threading.Thread(target=time.sleep, args=(60,), daemon=True).start()", "2 threads"),
        ("import subprocess; subprocess.Popen(['sleep', '60'])", "helper process"),
    ],
)
def test_what_cannot_be_forked_safely_is_loaded_by_each(
    tmp_path: Path, initialize: str, reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario() -> None:
        async with serving(tmp_path, initialize) as model:
            assert await model.scale(2, 2) == 200
            assert loads(tmp_path) == 3  # once to find out
            assert len({one["weights"] for one in await ask_each(model)}) == 2
        assert "weights cannot be shared" in caplog.text
        assert reason in caplog.text

    run(scenario)


@pytest.mark.parametrize(
    ("initialize", "status", "message"),
    [
        ("raise ValueError('no such weights')", 500, "ValueError: no such weights"),
        ("raise MemoryError", 507, "System out of memory"),
    ],
)
def test_a_load_that_fails_fails_once_for_all(
    tmp_path: Path, initialize: str, status: int, message: str
) -> None:
    async def scenario() -> None:
        async with serving(tmp_path, initialize, max_retry_timeout_s=0) as model:
            assert await model.scale(2, 2) == status
            await asyncio.gather(*(worker.first_outcome for worker in model.workers))
            assert {worker.last_error for worker in model.workers} == {message}
            assert loads(tmp_path) == 1

    run(scenario)


def test_a_load_that_ends_the_process_is_told_by_the_worker(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with serving(tmp_path, "sys.exit(3)", max_retry_timeout_s=0) as model:
            assert await model.scale(1, 1) == 500
            assert model.workers[0].last_error == "the worker process ended with status 3"

    run(scenario)


def test_a_load_that_never_ends_meets_its_limit(tmp_path: Path) -> None:
    async def scenario() -> None:
        limits = {"startup_timeout_s": 1, "max_retry_timeout_s": 0}
        async with serving(tmp_path, "time.sleep(60)", **limits) as model:
            assert await model.scale(1, 1) == 500
            assert model.workers[0].last_error == "Backend worker did not respond in given time"
            assert loads(tmp_path) == 1

    run(scenario)


def test_a_fork_that_does_not_start_is_replaced_by_a_plain_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("torchkeep.frontend.worker_life.SHARED_START_S", 1.0)
    # Every fork of the process that loaded hangs, as one does whose parent had computed
    # with several threads.
    initialize = "os.register_at_fork(after_in_child=hang)"

    async def scenario() -> None:
        async with serving(tmp_path, initialize) as model:
            assert await model.scale(1, 1) == 200
            assert loads(tmp_path) == 2
            await ask(model)
        assert "weights are no longer shared" in caplog.text

    run(scenario)


def test_an_interpreter_of_its_own_is_started_not_forked(tmp_path: Path) -> None:
    own = tmp_path / "own" / "python3"
    own.parent.mkdir()
    own.write_text(f'#!/bin/sh\nMINE=own exec {sys.executable} "$@"\n')
    own.chmod(0o755)

    async def scenario() -> None:
        async with serving(tmp_path, interpreter=str(own)) as model:
            assert await model.scale(2, 2) == 200
            answers = await ask_each(model)
            assert loads(tmp_path) == 2
            assert len({one["weights"] for one in answers}) == 2
            assert all(one["group"] and one["fds"] <= 5 for one in answers), answers
            arguments = [psutil.Process(one["pid"]).cmdline() for one in answers]
            assert all("worker" in line for line in arguments)

    run(scenario)


def test_an_interpreter_without_torchkeep_is_said_and_not_used(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario() -> None:
        async with serving(tmp_path, interpreter="/bin/false") as model:
            assert await model.scale(1, 1) == 200
            await ask(model)

    run(scenario)
    assert "/bin/false cannot import torchkeep" in caplog.text


def test_a_stage_that_names_a_foreign_process_is_not_believed() -> None:
    async def scenario() -> None:
        async with ZygoteClient() as zygote:
            plain = zygote._stages["plain"]
            assert plain.child is not None
            await plain.first_words()
            for pid in (1, os.getpid(), plain.child.pid, 0, -1, "7", None, True):
                with pytest.raises(ZygoteError):
                    zygote._adopt("model", {"pid": pid})

    run(scenario)


@pytest.mark.parametrize("words", [b"\xc1", b"\x01", b"\x82\xa1n\x01\xa3pid\x01", b""])
def test_a_stage_that_speaks_nonsense_is_an_error(words: bytes) -> None:
    async def scenario() -> None:
        async with ZygoteClient() as zygote:
            ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            with theirs:
                stage = StageClient("model", ours)
                theirs.send(b"\x81\xa5ready\x01")
                if words:
                    theirs.send(words)
                else:
                    theirs.shutdown(socket.SHUT_WR)
                with pytest.raises(ZygoteError):
                    await zygote.fork_from(stage, "9000", [])
                stage.close()

    run(scenario)
