"""Async handlers in one process: batches side by side, each with a context of its own."""

import asyncio
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from torchkeep.backend.concurrent_service import ConcurrentService
from torchkeep.runtime.messages import Chunk, InputParameter, Load, Prediction, RequestInput

HANDLER = """
import asyncio, json
from ts.handler_utils.utils import send_intermediate_predict_response
from ts.service import PredictionException

class Handler:
    def initialize(self, context):
        self.context = context
        context.notes = []
        self.together = asyncio.Barrier(2)

    async def handle(self, data, context):
        way = data[0]["body"].decode()
        return await getattr(self, way)(data, context)

    async def meets(self, data, context):
        await self.together.wait()
        context.notes.append(context.get_request_id(0))
        context.set_response_status(201, "Met", 0)
        return [json.dumps([context.notes, context.request_ids[0]])] * len(data)

    async def counts(self, data, context):
        context.metrics.add_counter("Rows", len(data))
        return [str(len(data))] * len(data)

    async def sends(self, data, context):
        send_intermediate_predict_response(["one"], context.request_ids, "more", 200, context)
        await asyncio.sleep(0)
        return ["two"]

    async def refuses(self, data, context):
        raise PredictionException("not this one", 429)

    async def gives_up(self, data, context):
        raise asyncio.CancelledError

    async def sets_a_number(self, data, context):
        context.set_response_header(0, "x-number", 1)
        return ["never seen"]

    async def fails_the_second(self, data, context):
        context.fail(1, PredictionException("not this one", 429))
        return ["fine", None]

    async def sleeps(self, data, context):
        await asyncio.sleep(60)
"""


@pytest.fixture
def load_source(tmp_path: Path) -> Iterator[Callable[..., ConcurrentService]]:
    services: list[ConcurrentService] = []

    def load_one(source: str = HANDLER) -> ConcurrentService:
        (tmp_path / "coroutines.py").write_text(source)
        load = Load(
            "m", "1.0", str(tmp_path), "coroutines.py", "", 2, True, True, {}, way="concurrent"
        )
        services.append(ConcurrentService.load(load))
        return services[-1]

    yield load_one
    for service in services:
        service.loop.close()


Loader = Callable[..., ConcurrentService]


def requests(way: str, *names: str) -> list[RequestInput]:
    return [RequestInput(name, {}, [InputParameter("body", way.encode())]) for name in names]


def test_two_batches_meet_and_each_has_its_own_context(load_source: Loader) -> None:
    service = load_source()

    async def both() -> list[Any]:
        calls = (service.answer(requests("meets", name)) for name in ("r0", "r1"))
        return await asyncio.gather(*calls)

    answers = service.loop.run_until_complete(both())
    assert [answer.items for answer in answers] == [
        [Prediction(name, f'[["{name}"], "{name}"]'.encode(), 201, "Met")] for name in ("r0", "r1")
    ]


def test_metrics_carry_the_ids_of_their_own_batch(load_source: Loader) -> None:
    service = load_source()
    answer = service.predict(requests("counts", "r0", "r1"))
    assert [bytes(item.body) for item in answer.items] == [b"2", b"2"]
    by_name = {metric.name: metric for metric in answer.metrics}
    assert by_name["Rows"].request_id == "r0,r1"
    assert "PredictionTime" in by_name


def test_pieces_leave_before_the_last(load_source: Loader) -> None:
    service = load_source()
    sent: list[Any] = []
    service.connect(sent.append)
    assert service.predict(requests("sends", "r0")).items == [Prediction("r0", b"two")]
    assert sent == [Chunk(200, "more", [Prediction("r0", b"one")])]


@pytest.mark.parametrize(
    ("way", "status", "message"),
    [
        ("refuses", 429, "not this one"),
        ("gives_up", 503, "Prediction failed"),
        ("no_such_way", 503, "Prediction failed"),
        ("sets_a_number", 503, "Prediction failed"),
    ],
)
def test_what_goes_wrong_answers_its_own_batch(
    load_source: Loader, way: str, status: int, message: str
) -> None:
    answer = load_source().predict(requests(way, "r0"))
    assert (answer.status, answer.message) == (status, message)
    assert [item.request_id for item in answer.items] == ["r0"]


def test_one_request_of_a_batch_may_fail(load_source: Loader) -> None:
    service = load_source()
    sent: list[Any] = []
    service.connect(sent.append)
    answer = service.predict(requests("fails_the_second", "r0", "r1"))
    assert sent == [Chunk(429, "not this one", [Prediction("r1", b"error")])]
    assert answer.items[0] == Prediction("r0", b"fine")


def test_a_cancelled_batch_is_answered_all_the_same(
    load_source: Loader, capfd: pytest.CaptureFixture[str]
) -> None:
    service = load_source()

    async def cancelled() -> Any:
        task = asyncio.ensure_future(service.answer(requests("sleeps", "r0")))
        await asyncio.sleep(0.01)
        task.cancel()
        return await task

    assert service.loop.run_until_complete(cancelled()).status == 503
    assert "Traceback" not in capfd.readouterr().err


def test_a_context_that_cannot_be_copied_fails_the_request(load_source: Loader) -> None:
    service = load_source("async def handle(data, context):\n    return ['fine'] * len(data)\n")
    assert service.predict(requests("any", "r0")).status == 200
    service._context.lock = threading.Lock()  # type: ignore[attr-defined]
    assert service.predict(requests("any", "r0")).status == 503


def test_a_plain_function_is_welcome_too(load_source: Loader) -> None:
    # TorchServe: 503, as it awaits a list
    service = load_source("def handle(data, context):\n    return data and ['fine'] * len(data)\n")
    assert service.predict(requests("any", "r0")).items == [Prediction("r0", b"fine")]
