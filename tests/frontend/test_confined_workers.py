"""Confined workers of every origin: they serve, restart and end as others do."""

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from ground import worker_ground
from waiting import until

from torchkeep.frontend.model_spec import ModelSpec
from torchkeep.frontend.sandbox_policy import SandboxPolicy
from torchkeep.frontend.served_model import ServedModel
from torchkeep.frontend.zygote_client import ZygoteClient
from torchkeep.modelstore.store import ModelStore
from torchkeep.runtime.cores import Cores
from torchkeep.runtime.kernel import kernel_layers
from torchkeep.runtime.messages import RequestInput

LAYERS = kernel_layers()
HANDLER = """
import ctypes, json, os, socket, tempfile

def handle(data, context):
    if data is None:
        return None
    try:
        socket.socket().close()
        network = True
    except PermissionError:
        network = False
    with tempfile.TemporaryFile() as file:
        file.write(b"x")
    deathsig = ctypes.c_int()
    ctypes.CDLL(None).prctl(2, ctypes.byref(deathsig), 0, 0, 0)
    return [json.dumps({
        "pid": os.getpid(), "network": network, "deathsig": deathsig.value,
        "files": os.listdir("."),
    })] * len(data)
"""
WAYS = {
    "forked": {},
    "shared": {"shared_weights": True},
    "spawned": {"runtime": "own"},
}

pytestmark = pytest.mark.skipif(bool(LAYERS.missing_for_strict), reason=LAYERS.describe())


@asynccontextmanager
async def serving(
    path: Path, policy: SandboxPolicy, handler: str = HANDLER, **spec: Any
) -> AsyncIterator[ServedModel]:
    (path / "store" / "m").mkdir(parents=True)
    (path / "store" / "m" / "h.py").write_text(handler)
    async with asyncio.timeout(60), ZygoteClient() as zygote:
        ground = worker_ground(
            zygote,
            cores=Cores((0,), (0,), None),
            interpreters={"own": sys.executable},
            sandbox=policy,
        )
        model_dir = await ModelStore(path / "store", [], path / "area").open("m")
        model = ServedModel(replace(ModelSpec("m", "1.0", "m", "h.py"), **spec), model_dir, ground)
        try:
            yield model
        finally:
            await model.close()


async def ask(model: ServedModel, request_id: str = "r") -> Any:
    job = model.submit(RequestInput(request_id, {}, []))
    return json.loads(bytes((await job.reply()).body))


@pytest.mark.parametrize("level", ["standard", "strict"])
@pytest.mark.parametrize("way", WAYS)
def test_a_confined_worker_serves_and_leaves_nothing(way: str, level: str, tmp_path: Path) -> None:
    async def scenario() -> None:
        async with serving(tmp_path, SandboxPolicy(level), **WAYS[way]) as model:
            assert await model.scale(2, 2) == 200
            answer = await ask(model)
            assert answer["network"] is (level == "standard")
            assert answer["deathsig"] == signal.SIGKILL
            assert answer["files"] == ["h.py"]

    asyncio.run(scenario())
    assert list((tmp_path / "area" / "models").iterdir()) == []


@pytest.mark.parametrize("way", WAYS)
def test_a_confined_worker_that_is_killed_is_replaced(way: str, tmp_path: Path) -> None:
    async def scenario() -> None:
        async with serving(tmp_path, SandboxPolicy("strict"), **WAYS[way]) as model:
            assert await model.scale(1, 1) == 200
            first = await ask(model)
            os.kill(first["pid"], signal.SIGKILL)
            worker = model.workers[0]
            await until(lambda: worker.pid != first["pid"] and worker.is_ready)
            assert (await ask(model))["pid"] != first["pid"]

    asyncio.run(scenario())


def test_a_strict_model_that_does_not_load_keeps_its_reason_to_itself(tmp_path: Path) -> None:
    async def scenario() -> None:
        policy = SandboxPolicy("strict")
        async with serving(tmp_path, policy, "raise ValueError('secret')") as model:
            assert await model.scale(1, 1) == 500
            assert "secret" not in model.workers[0].last_error
            assert "handler_log=console" in model.workers[0].last_error

    asyncio.run(scenario())


def test_a_model_says_why_it_has_no_sandbox(tmp_path: Path) -> None:
    async def scenario() -> None:
        policy = SandboxPolicy("strict")
        async with serving(tmp_path, policy, wants_network=True) as model:
            assert await model.scale(1, 1) == 500
            assert "sandbox_allow=network" in model.workers[0].last_error

    asyncio.run(scenario())
