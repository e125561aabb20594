"""Mixed load while workers are killed, and handlers that do harm: only what is hit suffers.

Each with a short form that runs always and a long one under `make test-long`.
"""

import asyncio
import json
import random
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
from many_requests import Load, Target

HERE = Path(__file__).parent
KILL_EVERY_S = 5.0
BACKOFF_S = 1.0  # the first step
SHORT_S, LONG_S = 8.0, 300.0

ECHO = """
def handle(data, context):
    if data is not None:
        return [bytes(row["body"]) for row in data]
"""
SLOW_BATCHES = """
import time
def handle(data, context):
    if data is not None:
        time.sleep(0.005)
        return [bytes(row["body"])[::-1] for row in data]
"""
LINEAR = """
import torch
class Handler:
    def initialize(self, context):
        torch.manual_seed(1)
        self.model = torch.nn.Linear(4, 4).eval()
        with torch.no_grad():
            self.model.weight.copy_(torch.eye(4) * 2)
            self.model.bias.zero_()
    def handle(self, data, context):
        rows = torch.tensor([[float(n) for n in bytes(row["body"]).split()] for row in data])
        with torch.inference_mode():
            return [" ".join(str(int(n)) for n in row) for row in self.model(rows).tolist()]
"""
BATCHED = "minWorkers: 2\nmaxWorkers: 2\nbatchSize: 8\nmaxBatchDelay: 5\n"
SHARED = "minWorkers: 2\nmaxWorkers: 2\nshared_weights: true\n"


def write_model(store: Path, name: str, source: str, config: str = "") -> None:
    """An archive as an unpacked directory."""
    directory = store / name
    (directory / "MAR-INF").mkdir(parents=True)
    (directory / "handler.py").write_text(source)
    model = {"modelName": name, "modelVersion": "1.0", "handler": "handler.py"}
    if config:
        (directory / "model-config.yaml").write_text(config)
        model["configFile"] = "model-config.yaml"
    manifest = {"runtime": "python", "model": model}
    (directory / "MAR-INF" / "MANIFEST.json").write_text(json.dumps(manifest))


def numbers(number: int) -> bytes:
    return " ".join(str((number * k) % 1000) for k in range(1, 5)).encode()


def doubled(body: bytes, answer: bytes) -> bool:
    return answer == b" ".join(str(2 * int(n)).encode() for n in body.split())


TARGETS = {
    "echo": Target("/predictions/echo", lambda n: b"echo %d" % n, lambda b, a: a == b),
    "batched": Target("/predictions/batched", lambda n: b"%d" % n * 100, lambda b, a: a == b[::-1]),
    "linear": Target("/predictions/linear", numbers, doubled),
}


class Killer:
    """Kills one worker after another; notes how long each takes to be ready again."""

    def __init__(self, server: Any, models: list[str], batch_sizes: dict[str, int]) -> None:
        self.server = server
        self.models = models
        self.batch_sizes = batch_sizes
        self.recoveries_s: list[float] = []
        self.could_fail = 0  # requests that may have been in flight
        self._random = random.Random(7)

    async def run(self, duration_s: float) -> None:
        end = time.monotonic() + duration_s
        while time.monotonic() < end:
            model = self._random.choice(self.models)
            workers = await asyncio.to_thread(self.server.workers, model)
            victim = self._random.choice(workers)
            psutil.Process(victim["pid"]).send_signal(signal.SIGKILL)
            self.could_fail += self.batch_sizes[model]
            killed = time.monotonic()
            while not await asyncio.to_thread(self._is_replaced, model, victim):
                assert time.monotonic() - killed < 30, f"{model} did not recover"
                await asyncio.sleep(0.05)
            self.recoveries_s.append(time.monotonic() - killed)
            await asyncio.sleep(max(0, KILL_EVERY_S - (time.monotonic() - killed)))

    def _is_replaced(self, model: str, victim: dict[str, Any]) -> bool:
        now = {worker["id"]: worker for worker in self.server.workers(model)}[victim["id"]]
        return now["pid"] != victim["pid"] and now["status"] == "READY"


@pytest.mark.parametrize(
    "duration_s",
    [
        pytest.param(SHORT_S, id="short"),
        pytest.param(
            LONG_S, id="long", marks=[pytest.mark.long, pytest.mark.timeout(LONG_S + 120)]
        ),
    ],
)
@pytest.mark.torch
def test_killed_workers_fail_only_their_batch(
    duration_s: float, tmp_path: Path, server_factory: Callable[..., Any], poll: Callable[..., Any]
) -> None:
    store = tmp_path / "store"
    write_model(store, "echo", ECHO)
    write_model(store, "batched", SLOW_BATCHES, BATCHED)
    write_model(store, "linear", LINEAR, SHARED)
    server = server_factory(models=["all"], store=store)
    server.wait_until_ready(*TARGETS)
    server.wait_for_lines("linear 1.0: 2 of 2 workers")
    slowest_load_s = max_load_s(server)
    before = footprint(server)

    async def chaos() -> Killer:
        loads = [Load(server.inference, target, 4) for target in TARGETS.values()]
        killer = Killer(server, list(TARGETS), {"echo": 1, "batched": 8, "linear": 1})
        running = [asyncio.create_task(one.run()) for one in loads]
        await killer.run(duration_s)
        for one in loads:
            one.stop()
        await asyncio.gather(*running)
        wrong = [line for one in loads for line in one.outcomes.wrong]
        assert not wrong, wrong[:10]
        died = sum(one.outcomes.counts["worker died"] for one in loads)
        answered = sum(one.outcomes.counts["answered"] for one in loads)
        assert died <= killer.could_fail, (died, killer.could_fail)
        assert answered > 100 * duration_s
        return killer

    killer = asyncio.run(chaos())
    assert len(killer.recoveries_s) >= duration_s / KILL_EVERY_S - 1
    # Two seconds for a loaded machine: a worker that waited for the second step of the
    # back-off, or loaded twice, is beyond it.
    assert max(killer.recoveries_s) < BACKOFF_S + slowest_load_s + 2.0, killer.recoveries_s
    assert server.process.poll() is None
    poll(lambda: is_back(server, before), "nothing more is open than before")


def max_load_s(server: Any) -> float:
    """The slowest load so far, of what the start-up lines say."""
    lines = [line for line in server.log_text().splitlines() if "slowest load" in line]
    return max(float(line.split("slowest load ")[1].split()[0]) for line in lines)


def footprint(server: Any) -> tuple[int, int, int]:
    """Descriptors, processes and files of a server."""
    process = psutil.Process(server.pid)
    files = sum(not path.is_dir() for path in server.temp.rglob("*"))
    return process.num_fds(), len(server.descendants()), files


def is_back(server: Any, before: tuple[int, int, int]) -> bool:
    """A connection of the test itself may have been open at the first look."""
    descriptors, *rest = footprint(server)
    return descriptors <= before[0] and rest == list(before[1:])


# What test_isolation.py tries once, on one server for all, is repeated here.
REPEATED = ("descriptors", "flood", "fork", "daemons", "threads", "catch")


@pytest.mark.parametrize(
    "way", ["leak", *(pytest.param(way, marks=pytest.mark.long) for way in REPEATED)]
)
def test_a_harmful_handler_harms_only_itself(
    way: str, tmp_path: Path, server_factory: Callable[..., Any], poll: Callable[..., Any]
) -> None:
    store = tmp_path / "store"
    write_model(store, "echo", ECHO, "minWorkers: 1\nmaxWorkers: 1\n")
    hostile = (HERE.parent / "handlers" / "hostile.py").read_text()
    write_model(store, "hostile", hostile, "minWorkers: 1\nmaxWorkers: 1\n")
    server = server_factory(models=["echo"], store=store)
    server.wait_until_ready("echo")
    before = footprint(server)
    status, _, _ = server.request("POST", "/models?url=hostile&synchronous=true", port="management")
    assert status == 200

    async def side_by_side() -> None:
        beside = Load(server.inference, TARGETS["echo"], 2)
        running = asyncio.create_task(beside.run())
        for _ in range(3):
            status, _, body = await asyncio.to_thread(
                server.request, "POST", f"/predictions/hostile/1.0/{way}", b"x"
            )
            assert (status, body) == (200, way.encode())
        beside.stop()
        outcomes = await running
        assert not outcomes.wrong
        assert set(outcomes.counts) == {"answered"}

    asyncio.run(side_by_side())
    status, _, _ = server.request("DELETE", "/models/hostile", port="management")
    assert status == 200
    poll(lambda: is_back(server, before), f"nothing of {way} is left", 20)
