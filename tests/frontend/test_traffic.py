"""Step by step and side by side: what a worker that misbehaves costs, on the wire."""

import asyncio

import pytest
from scripted_worker import model_with, request

from torchkeep.frontend.errors import WorkerFailed

STEPS = {"continuous_batching": True, "batch_size": 2}
STRANGER = "send(sealed(Predictions(200, 'ok', [Prediction('stranger', b'')])))"


@pytest.mark.parametrize(
    "deed",
    [
        pytest.param(STRANGER, id="an answer for nobody"),
        pytest.param("send(chunk(('stranger', b'')))", id="a piece for nobody"),
        pytest.param("send(sealed(Loaded(200, 'again')))", id="no answer"),
        pytest.param("connection.close()", id="the end"),
    ],
)
@pytest.mark.parametrize("spec", [STEPS, {"is_async": True}], ids=["steps", "concurrent"])
def test_what_a_worker_may_not_send_fails_what_it_was_at(deed: str, spec: dict[str, int]) -> None:
    async def scenario() -> None:
        async with asyncio.timeout(60):
            model = model_with(deed, **spec)
            await model.scale(1, 1)
            with pytest.raises(WorkerFailed, match=r"^Worker died\.$"):
                await model.submit(request()).reply()
            assert (await model.submit(request("next")).reply()).body == b"fine"
            await model.close()

    asyncio.run(scenario())


def test_a_concurrent_worker_answers_in_any_order_and_one_batch_fails_alone() -> None:
    deed = """
others = [receive(), receive()]
for one, status in ((others[1], 200), (request, 429), (others[0], 200)):
    ids = [single.request_id for single in one.requests]
    send(sealed(Predictions(status, "mine", [Prediction(name, name.encode()) for name in ids])))
receive()
"""

    async def scenario() -> None:
        async with asyncio.timeout(60):
            model = model_with(deed, is_async=True)
            await model.scale(1, 1)
            jobs = [model.submit(request(name)) for name in "abc"]
            assert [(await jobs[n].reply()).body for n in (1, 2)] == [b"b", b"c"]
            with pytest.raises(WorkerFailed, match="mine"):
                await jobs[0].reply()
            await model.close()

    asyncio.run(scenario())


def test_a_concurrent_worker_is_told_once_that_the_last_client_left() -> None:
    deed = """
told = receive()
assert told == Cancel("a"), told
send(sealed(good(request)))
send(sealed(good(receive())))
receive()
"""

    async def scenario() -> None:
        async with asyncio.timeout(60):
            model = model_with(deed, is_async=True, batch_size=2, max_batch_delay_ms=60_000)
            await model.scale(1, 1)
            pid = model.workers[0].pid
            left = [model.submit(request(name)) for name in "ab"]
            left[0].cancel()
            left[1].cancel()
            stay = [model.submit(request(name)) for name in "cd"]
            assert [(await job.reply()).body for job in stay] == [b"fine"] * 2
            assert model.workers[0].pid == pid
            await model.close()

    asyncio.run(scenario())


def test_a_step_without_an_answer_in_time_fails_all_that_it_holds() -> None:
    deed = "send(chunk(('a', b'one'))); send(sealed(Predictions(200, 'ok', []))); time.sleep(60)"

    async def scenario() -> None:
        async with asyncio.timeout(60):
            model = model_with(deed, response_timeout_s=1, **STEPS)
            await model.scale(1, 1)
            job = model.submit(request("a"))
            assert (await job.reply()).body == b"one"
            assert job.stream is not None
            with pytest.raises(WorkerFailed):
                await job.stream.take()
            await model.close()

    asyncio.run(scenario())


def test_a_known_request_is_sent_again_without_its_parameters() -> None:
    deed = """
assert request.requests[0].parameters
send(chunk(('a', b'one ')))
send(sealed(Predictions(200, 'ok', [])))
again = receive()
assert [(one.request_id, one.parameters) for one in again.requests] == [('a', [])]
send(sealed(good(again)))
receive()
"""

    async def scenario() -> None:
        async with asyncio.timeout(60):
            model = model_with(deed, max_batch_delay_ms=1, **STEPS)
            await model.scale(1, 1)
            job = model.submit(request("a"))
            assert (await job.reply()).body == b"one "
            assert job.stream is not None
            assert await job.stream.take() == (b"fine", True)
            await model.close()

    asyncio.run(scenario())
