"""A served model with real workers: batches, failures, restarts, scaling, the end."""

import asyncio
import itertools
import json
import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from ground import worker_ground
from waiting import until

from torchkeep.frontend import worker_process
from torchkeep.frontend.errors import ServiceUnavailable, WorkerFailed
from torchkeep.frontend.jobs import Job
from torchkeep.frontend.model_spec import ModelSpec
from torchkeep.frontend.served_model import ServedModel
from torchkeep.frontend.worker_process import WorkerState
from torchkeep.frontend.zygote_client import ZygoteClient
from torchkeep.runtime.messages import InputParameter, RequestInput

HANDLER = """
import json, os, random, signal, sys, time

def handle(data, context):
    if data is None:
        return
    out = []
    for row in data:
        order = json.loads(row["body"])
        if order.get("do") == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        if order.get("do") == "exit":
            sys.exit(3)
        if order.get("do") == "sleep":
            time.sleep(order["s"])
        if order.get("do") == "wait":
            while not os.path.exists(order["file"]):
                time.sleep(0.01)
        out.append({"pid": os.getpid(), "batch": len(data), "n": order.get("n")})
    return out
"""


@dataclass
class FakeDir:
    """An unpacked archive; the real one is tested in modelstore."""

    path: Path
    closed: int = 0

    def close(self) -> None:
        self.closed += 1


@asynccontextmanager
async def serving(
    path: Path, handler: str = HANDLER, workers: int = 1, **spec: Any
) -> AsyncIterator[ServedModel]:
    (path / "h.py").write_text(handler)
    asked = ModelSpec(name="m", version="1.0", url="m.mar", handler="h.py", **spec)
    async with asyncio.timeout(60), ZygoteClient() as zygote:
        ground = worker_ground(zygote)
        model_dir = FakeDir(path)
        model = ServedModel(asked, model_dir, ground)  # type: ignore[arg-type]
        try:
            if workers:
                assert await model.scale(workers, workers) == 200
            yield model
        finally:
            await model.close()
            assert model_dir.closed >= 1


_ids = itertools.count()


def submit(model: ServedModel, version: str | None = None, **order: Any) -> Job:
    body = InputParameter("body", json.dumps(order).encode())
    return model.submit(RequestInput(f"r{next(_ids)}", {}, [body]), version)


async def answer(job: Job) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(bytes((await job.reply()).body))
    return found


def is_process(pid: int) -> bool:
    return os.path.exists(f"/proc/{pid}")


def run(scenario: Callable[[], Awaitable[None]]) -> None:
    asyncio.run(scenario())  # type: ignore[arg-type]


def test_requests_are_answered_by_the_handler(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with serving(tmp_path, workers=2) as model:
            answers = await asyncio.gather(*(answer(submit(model, n=n)) for n in range(50)))
            assert [one["n"] for one in answers] == list(range(50))
            assert model.is_scaled
            assert model.healthy_workers == 2
            assert {w.worker_id for w in model.workers} == {"9000", "9001"}
            assert {one["pid"] for one in answers} <= {w.pid for w in model.workers}
            assert all(w.memory_bytes > 1 << 20 for w in model.workers)

    run(scenario)


def test_a_client_that_waited_long_enough_is_told_so(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with serving(tmp_path, client_timeout_ms=200) as model:
            file = tmp_path / "go"
            running, queued = submit(model, do="wait", file=str(file)), submit(model)
            for late in (running, queued):
                with pytest.raises(ServiceUnavailable, match="within its clientTimeoutInMills"):
                    await late.reply()
            assert len(model.queue) <= 1  # what is left there is over, and skipped
            file.touch()
            (worker,) = model.workers
            # TorchServe: the worker's late answer is dropped, and it serves on
            await until(lambda: not worker._traffic.jobs)
            assert (await answer(submit(model, n=7)))["pid"] == worker.pid

    run(scenario)


def test_a_model_with_job_tickets_takes_a_request_for_each_idle_worker(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with serving(tmp_path, workers=2, use_job_ticket=True) as model:
            file = tmp_path / "go"
            running = [submit(model, do="wait", file=str(file)) for _ in range(2)]
            for version in (None, "1.0"):
                with pytest.raises(ServiceUnavailable, match="has no worker to serve inference"):
                    submit(model, version)
            file.touch()
            for job in running:
                await job.reply()
            assert await answer(submit(model, n=1))

    run(scenario)


def test_jobs_share_a_batch(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with serving(tmp_path, batch_size=4, max_batch_delay_ms=2000) as model:
            answers = await asyncio.gather(*(answer(submit(model)) for _ in range(4)))
            assert [one["batch"] for one in answers] == [4, 4, 4, 4]

    run(scenario)


@pytest.mark.parametrize(("order", "status"), [("kill", 507), ("exit", 500)])
def test_a_dead_worker_fails_its_batch_and_comes_back(
    order: str, status: int, tmp_path: Path
) -> None:
    async def scenario() -> None:
        async with serving(tmp_path) as model:
            (worker,) = model.workers
            pid = worker.pid
            doomed, queued = submit(model, do=order), submit(model, n=2)
            with pytest.raises(WorkerFailed, match=r"^Worker died\.$") as raised:
                await doomed.reply()
            assert raised.value.status == status
            assert model.healthy_workers == 1  # inside the retry window
            found = await answer(queued)  # waited for the restart
            assert found["n"] == 2
            assert found["pid"] != pid
            assert worker.worker_id == "9000"

    run(scenario)


def test_a_worker_killed_while_idle_comes_back(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with serving(tmp_path) as model:
            (worker,) = model.workers
            pid = worker.pid
            os.kill(pid, signal.SIGKILL)
            await until(lambda: worker.state is not WorkerState.MODEL_LOADED)
            assert (await answer(submit(model)))["pid"] != pid

    run(scenario)


def test_a_worker_that_never_answers_is_killed(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with serving(tmp_path, response_timeout_s=1) as model:
            pid = model.workers[0].pid
            with pytest.raises(WorkerFailed, match=r"^Worker died\.$") as raised:
                await submit(model, do="sleep", s=60).reply()
            assert raised.value.status == 500
            await until(lambda: not is_process(pid))

    run(scenario)


def test_a_description_may_take_longer_than_the_response_timeout(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with serving(tmp_path, response_timeout_s=1, batch_size=4) as model:
            pid = model.workers[0].pid
            body = InputParameter("body", b'{"do": "sleep", "s": 1.5}')
            described = model.submit(RequestInput("r", {}, [body]), describes=True)
            job = submit(model, n=1)
            assert (await answer(described))["batch"] == 1
            assert (await answer(job))["pid"] == pid

    run(scenario)


def test_requests_sent_while_workers_load_wait_in_the_queue(tmp_path: Path) -> None:
    async def scenario() -> None:
        slow_load = "import time; time.sleep(0.5)" + HANDLER
        async with serving(tmp_path, slow_load, workers=0) as model:
            model.begin_scale(1, 1)
            job = submit(model, n=1)
            assert len(model.queue) == 1
            assert not model.workers[0].is_ready
            assert (await answer(job))["n"] == 1

    run(scenario)


def test_a_failed_worker_keeps_its_old_pid_until_the_new_process_has_its_own(
    tmp_path: Path,
) -> None:
    async def scenario() -> None:
        async with serving(tmp_path) as model:
            (worker,) = model.workers
            old = worker.pid
            os.kill(old, signal.SIGKILL)
            await until(lambda: worker.state is WorkerState.STOPPED)
            assert worker.pid == old
            await until(lambda: worker.is_ready)
            assert worker.pid != old

    run(scenario)


def test_after_the_retry_window_requests_are_accepted_and_wait(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with serving(tmp_path, max_retry_timeout_s=0) as model:
            os.kill(model.workers[0].pid, signal.SIGKILL)
            await until(lambda: model.healthy_workers == 0)
            job = submit(model)
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(job.reply(), 0.1)
            assert len(model.queue) == 1

    run(scenario)


def test_a_retry_scheduled_inside_the_window_runs_after_its_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker_process, "BACKOFF_S", (1.5,))

    async def scenario() -> None:
        async with serving(tmp_path, max_retry_timeout_s=1) as model:
            os.kill(model.workers[0].pid, signal.SIGKILL)
            await until(lambda: model.healthy_workers == 0)
            await until(lambda: model.healthy_workers == 1)
            assert model.workers[0].is_ready

    run(scenario)


def test_a_failed_load_is_told_with_the_handlers_own_words(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with serving(tmp_path, "def handle(data, context): 1 / 0", workers=0) as model:
            assert await model.scale(1, 1) == 500
            assert "ZeroDivisionError: division by zero" in model.workers[0].last_error
            assert not model.is_scaled

    run(scenario)


def test_workers_that_are_still_loading_count_as_scaled_and_healthy(tmp_path: Path) -> None:
    handler = f"""
import os, time
def handle(data, context):
    while not os.path.exists({str(tmp_path / "go")!r}):
        time.sleep(0.01)
"""

    async def scenario() -> None:
        async with serving(tmp_path, handler, workers=0) as model:
            model.begin_scale(1, 1)
            # TorchServe: only workers of its own are waited for
            assert await model.scale(1, 1) == 200
            assert not model.workers[0].is_ready
            assert model.is_scaled
            assert model.healthy_workers == 1
            (tmp_path / "go").touch()
            await until(lambda: model.workers[0].is_ready)
            os.kill(model.workers[0].pid, signal.SIGKILL)
            await until(lambda: not model.is_scaled)
            assert model.healthy_workers == 1  # until the window of its retries is over

    run(scenario)


def test_without_retries_a_failed_worker_is_unhealthy_at_once(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with serving(tmp_path, max_retry_timeout_s=0) as model:
            os.kill(model.workers[0].pid, signal.SIGKILL)
            await until(lambda: model.healthy_workers == 0)
            assert len(model.workers) == 1  # it stays listed, and requests still queue

    run(scenario)


def test_a_full_queue_refuses(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with serving(tmp_path, job_queue_size=1) as model:
            gate = tmp_path / "gate"
            running = submit(model, do="wait", file=str(gate))
            await until(lambda: len(model.queue) == 0)
            queued = submit(model, n=1)
            with pytest.raises(ServiceUnavailable, match=r'^Model "m" has no worker'):
                submit(model)
            with pytest.raises(ServiceUnavailable, match=r'^Model "m" Version 1\.0" has no worker'):
                submit(model, version="1.0")
            gate.touch()
            await answer(running)
            await answer(queued)

    run(scenario)


def test_a_cancelled_job_is_not_run(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with serving(tmp_path) as model:
            gate = tmp_path / "gate"
            running = submit(model, do="wait", file=str(gate))
            left, stayed = submit(model, do="kill"), submit(model, n=3)
            left.cancel()
            gate.touch()
            assert (await answer(running))["pid"] == (await answer(stayed))["pid"]

    run(scenario)


def test_scaling_down_lets_the_batch_in_flight_finish(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with serving(tmp_path) as model:
            gate = tmp_path / "gate"
            pid = model.workers[0].pid
            running = submit(model, do="wait", file=str(gate), n=1)
            await until(lambda: len(model.queue) == 0)
            queued = submit(model)
            assert await model.scale(0, 0) == 200
            assert model.workers == []
            with pytest.raises(ServiceUnavailable):
                await queued.reply()
            with pytest.raises(ServiceUnavailable):
                submit(model)
            gate.touch()
            assert (await answer(running))["n"] == 1
            await until(lambda: not is_process(pid))

    run(scenario)


def test_scaling_keeps_the_oldest_workers(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with serving(tmp_path, workers=3) as model:
            first = model.workers[0].worker_id
            assert await model.scale(1, 2) == 200
            assert [w.worker_id for w in model.workers] == [first, "9001"]
            assert await model.scale(1, 5) == 200  # between both limits: nothing changes
            assert len(model.workers) == 2
            assert await model.scale(3, 3) == 200
            assert [w.worker_id for w in model.workers] == [first, "9001", "9003"]
            # below the minimum none goes, even where the maximum is lower still
            assert await model.scale(4, 1) == 200
            assert len(model.workers) == 4

    run(scenario)


def test_closing_answers_queued_and_stuck_requests(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with serving(tmp_path) as model:
            pid = model.workers[0].pid
            stuck = submit(model, do="sleep", s=60)
            await until(lambda: len(model.queue) == 0)
            queued = submit(model)
            await model.close(grace_s=0.2)
            for job in (stuck, queued):
                with pytest.raises(ServiceUnavailable):
                    await job.reply()
            assert not is_process(pid)

    run(scenario)


def test_a_process_that_a_handler_started_goes_with_its_worker(tmp_path: Path) -> None:
    handler = """
import subprocess
def handle(data, context):
    if data is None:
        return
    return [subprocess.Popen(["sleep", "600"]).pid]
"""

    async def scenario() -> None:
        async with serving(tmp_path, handler) as model:
            child = json.loads(bytes((await submit(model).reply()).body))
            assert is_process(child)
            await model.scale(0, 0)
            await until(lambda: not is_process(child))

    run(scenario)


@pytest.mark.parametrize("leave", ["unregister", "scale to zero"])
def test_a_request_whose_batch_is_being_assembled_is_answered_at_once(
    tmp_path: Path, leave: str
) -> None:
    async def scenario() -> None:
        async with serving(tmp_path, batch_size=8, max_batch_delay_ms=60_000) as model:
            job = submit(model)
            if leave == "unregister":
                await model.close()
            else:
                model.begin_scale(0, 0)
            with pytest.raises(ServiceUnavailable):
                await asyncio.wait_for(job.reply(), 5)

    run(scenario)
