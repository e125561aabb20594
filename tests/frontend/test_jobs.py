"""Jobs and the queue that workers pull batches from."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

import pytest

from torchkeep.frontend.errors import ServiceUnavailable, WorkerFailed
from torchkeep.frontend.jobs import Job, JobQueue
from torchkeep.runtime.messages import Prediction, RequestInput

T = TypeVar("T")


def run(scenario: Callable[[], Awaitable[T]]) -> T:
    async def bounded() -> T:
        async with asyncio.timeout(10):
            return await scenario()

    return asyncio.run(bounded())


def job(name: str) -> Job:
    return Job(RequestInput(name, {}, []), "default")


def names(jobs: list[Job]) -> list[str]:
    return [one.request.request_id for one in jobs]


def description(name: str) -> Job:
    return Job(RequestInput(name, {}, []), "default", describes=True)


def filled(queue: JobQueue, *request_ids: str) -> list[Job]:
    jobs = [job(request_id) for request_id in request_ids]
    for one in jobs:
        queue.put(one)
    return jobs


def pulled(queue: JobQueue, size: int, delay_s: float) -> "asyncio.Future[list[Job]]":
    """The batch of one pull."""
    batch: asyncio.Future[list[Job]] = asyncio.get_running_loop().create_future()
    queue.pull(size, delay_s, batch.set_result)
    return batch


def test_a_batch_takes_what_is_there_up_to_its_size() -> None:
    async def scenario() -> None:
        queue = JobQueue(10)
        filled(queue, "a", "b", "c")
        assert names(await pulled(queue, 2, 5)) == ["a", "b"]
        assert names(await pulled(queue, 1, 5)) == ["c"]

    run(scenario)


def test_a_description_is_always_alone_in_its_batch() -> None:
    async def scenario() -> None:
        queue = JobQueue(10)
        filled(queue, "a", "b")
        queue.put(Job(RequestInput("describe", {}, []), "default", describes=True))
        filled(queue, "c")
        assert names(await pulled(queue, 4, 5)) == ["a", "b"]  # which ends the wait
        assert queue.take_predictions(9) == []
        assert names(await pulled(queue, 4, 5)) == ["describe"]
        assert names(await pulled(queue, 4, 0)) == ["c"]

    run(scenario)


def test_a_description_does_not_wait_for_clients_that_left() -> None:
    async def scenario() -> None:
        queue = JobQueue(10)
        batch = pulled(queue, 4, 60)
        (left,) = filled(queue, "a")
        left.cancel()
        gone, here = (Job(RequestInput(n, {}, []), "default", describes=True) for n in "xy")
        gone.cancel()
        queue.put(gone)
        queue.put(here)
        assert names(await batch) == ["y"]

    run(scenario)


def test_an_unfilled_batch_leaves_after_the_delay() -> None:
    async def scenario() -> None:
        queue = JobQueue(10)
        filled(queue, "a")
        assert names(await pulled(queue, 4, 0.05)) == ["a"]

    run(scenario)


def test_a_late_job_joins_a_waiting_batch() -> None:
    async def scenario() -> None:
        queue = JobQueue(10)
        batch = pulled(queue, 2, 5)
        filled(queue, "a")
        await asyncio.sleep(0)
        filled(queue, "b")
        assert names(await batch) == ["a", "b"]

    run(scenario)


def test_a_description_is_never_batched_with_other_requests() -> None:
    async def scenario() -> None:
        queue = JobQueue(10)
        batches = [pulled(queue, 4, 5) for _ in range(4)]
        filled(queue, "a", "b")
        queue.put(description("c"))  # ends the batch before it, which would wait for more
        queue.put(description("d"))
        filled(queue, "e", "f", "g", "h")
        assert [names(await batch) for batch in batches] == [
            ["a", "b"],
            ["c"],
            ["d"],
            ["e", "f", "g", "h"],
        ]

    run(scenario)


def test_a_description_behind_a_client_that_left_waits_for_nobody() -> None:
    async def scenario() -> None:
        queue = JobQueue(10)
        batch = pulled(queue, 4, 5)
        (left,) = filled(queue, "a")
        left.cancel()
        queue.put(description("b"))
        assert names(await batch) == ["b"]

    run(scenario)


@pytest.mark.parametrize("delay_s", [0.0, -10.0])
def test_without_a_delay_a_batch_holds_two_at_most(delay_s: float) -> None:
    # TorchServe: the remaining delay is looked at only after a job was taken.
    async def scenario() -> None:
        queue = JobQueue(10)
        filled(queue, "a", "b", "c")
        assert names(await pulled(queue, 8, delay_s)) == ["a", "b"]
        assert names(await pulled(queue, 8, delay_s)) == ["c"]

    run(scenario)


def test_cancelled_jobs_are_skipped() -> None:
    async def scenario() -> None:
        queue = JobQueue(10)
        first, _ = filled(queue, "a", "b")
        first.cancel()
        assert names(await pulled(queue, 2, 0)) == ["b"]

    run(scenario)


def test_a_queue_is_full_at_its_capacity_but_not_with_cancelled_jobs() -> None:
    async def scenario() -> None:
        queue = JobQueue(2)
        first, _ = filled(queue, "a", "b")
        assert not queue.has_room_for(first.request)
        first.cancel()
        assert queue.has_room_for(first.request)
        assert len(queue) == 1

    run(scenario)


def test_a_worker_that_stops_while_it_waits_takes_no_job_with_it() -> None:
    async def scenario() -> None:
        queue = JobQueue(10)
        taken: list[list[Job]] = []
        stopping = queue.pull(3, 60, taken.append)
        filled(queue, "a", "b")
        assert len(queue) == 0
        stopping.cancel()
        assert len(queue) == 2
        filled(queue, "c")
        assert names(await pulled(queue, 3, 0)) == ["a", "b"]
        assert taken == []

    run(scenario)


def test_a_job_reaches_an_idle_worker_at_once() -> None:
    async def scenario() -> None:
        queue = JobQueue(10)
        taken: list[list[Job]] = []
        queue.pull(1, 60, taken.append)
        jobs = filled(queue, "a", "b")
        assert taken == [jobs[:1]]
        assert queue.drain() == jobs[1:]

    run(scenario)


def test_two_workers_take_turns_at_assembling() -> None:
    async def scenario() -> None:
        queue = JobQueue(10)
        first = pulled(queue, 2, 60)
        second = pulled(queue, 2, 60)
        await asyncio.sleep(0)
        filled(queue, "a", "b", "c", "d")
        assert names(await first) == ["a", "b"]
        assert names(await second) == ["c", "d"]

    run(scenario)


def test_the_first_answer_counts() -> None:
    async def scenario() -> None:
        one = job("a")
        one.answer(Prediction("a", b"body"))
        one.fail(WorkerFailed(500, "late"))
        assert (await one.reply()).body == b"body"
        other = job("b")
        other.fail(WorkerFailed(507, "Worker died."))
        other.answer(Prediction("b", b"late"))
        with pytest.raises(WorkerFailed, match="died"):
            await other.reply()

    run(scenario)


def test_an_answer_is_delivered_once_whenever_it_comes() -> None:
    got: list[object] = []
    early, late, left = job("a"), job("b"), job("c")
    early.answer(Prediction("a", b"1"))
    early.when_answered(got.append)
    late.when_answered(got.append)
    late.fail(error := WorkerFailed(500, "Worker died."))
    late.answer(Prediction("b", b"2"))
    left.when_answered(got.append)
    left.cancel()
    left.answer(Prediction("c", b"3"))
    assert got == [Prediction("a", b"1"), error]


def test_what_was_taken_may_be_put_back_in_order() -> None:
    queue = JobQueue(10)
    first, second, third = filled(queue, "a", "b", "c")
    first.cancel()
    assert queue.take_predictions(1) == [second]
    queue.put_back([second])
    assert queue.take_predictions(9) == [second, third]


def test_clients_that_leave_while_a_batch_is_assembled_are_not_in_it() -> None:
    async def scenario() -> None:
        queue = JobQueue(10)
        batch = pulled(queue, 3, 60)
        leaving, _ = filled(queue, "a", "b")
        await asyncio.sleep(0)
        leaving.cancel()
        filled(queue, "c")
        assert names(await batch) == ["b", "c"]

    run(scenario)


def test_a_batch_whose_clients_all_left_waits_for_others() -> None:
    async def scenario() -> None:
        queue = JobQueue(10)
        batch = pulled(queue, 2, 0.05)
        (leaving,) = filled(queue, "a")
        leaving.cancel()
        await asyncio.sleep(0.1)
        assert not batch.done()
        filled(queue, "b")
        assert names(await batch) == ["b"]

    run(scenario)


def test_the_first_piece_is_the_reply_and_the_others_follow() -> None:
    async def scenario() -> None:
        one = job("a")
        one.add_piece(Prediction("a", b"one", 201))
        one.add_piece(Prediction("a", b"two", 500))
        one.answer(Prediction("a", b"three", 500))
        assert await one.reply() == Prediction("a", b"one", 201)
        assert one.stream is not None
        assert await one.stream.take() == (b"two", False)
        assert await one.stream.take() == (b"three", True)

    run(scenario)


def test_without_a_piece_there_is_no_stream() -> None:
    async def scenario() -> None:
        answered, failed = job("a"), job("b")
        answered.answer(Prediction("a", b"all"))
        answered.add_piece(Prediction("a", b"late"))
        failed.fail(WorkerFailed(418, "said by the handler"))
        failed.add_piece(Prediction("b", b"late"))
        failed.answer(Prediction("b", b"late"))
        assert answered.stream is None
        assert failed.stream is None
        assert (await answered.reply()).body == b"all"
        with pytest.raises(WorkerFailed, match="said"):
            await failed.reply()

    run(scenario)


def test_an_error_in_mid_stream_leaves_the_first_piece() -> None:
    async def scenario() -> None:
        one = job("a")
        one.add_piece(Prediction("a", b"one"))
        one.fail(WorkerFailed(500, "Worker died."))
        assert (await one.reply()).body == b"one"
        assert one.stream is not None
        with pytest.raises(WorkerFailed, match="died"):
            await one.stream.take()

    run(scenario)


def test_pieces_for_a_client_that_left_are_dropped() -> None:
    async def scenario() -> None:
        early, late = job("a"), job("b")
        early.cancel()
        early.add_piece(Prediction("a", b"one"))
        assert early.stream is None
        late.add_piece(Prediction("b", b"one"))
        late.cancel()
        late.add_piece(Prediction("b", b"two"))
        late.answer(Prediction("b", b"three"))
        assert late.stream is not None
        with pytest.raises(asyncio.CancelledError):
            await late.stream.take()

    run(scenario)


def test_a_job_that_expires_fails_and_its_late_answer_is_dropped() -> None:
    async def scenario() -> None:
        one, other = job("a"), job("b")
        one.expire_in(0.01, ServiceUnavailable("too late"))
        other.expire_in(0.01, ServiceUnavailable("too late"))
        other.answer(Prediction("b", b"in time"))
        with pytest.raises(ServiceUnavailable, match="too late"):
            await one.reply()
        one.answer(Prediction("a", b"late"))
        with pytest.raises(ServiceUnavailable, match="too late"):
            await one.reply()
        assert (await other.reply()).body == b"in time"

    run(scenario)


def test_a_request_dropped_for_its_clients_timeout_is_told_sent_or_not(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def scenario() -> None:
        sent, queued, taken_back = job("a"), job("b"), job("c")
        sent.sent_at = taken_back.sent_at = 1.0
        JobQueue(9).put_back([taken_back])
        for late in (sent, queued, taken_back):
            late.expire_in(0.01, ServiceUnavailable("too late"))
        for late in (sent, queued, taken_back):
            with pytest.raises(ServiceUnavailable):
                await late.reply()

    run(scenario)
    assert caplog.messages == [
        "Drop response for inference request a due to client timeout",
        "Drop inference request b due to client timeout",
        "Drop inference request c due to client timeout",
    ]


def test_a_stream_that_expires_breaks_off() -> None:
    async def scenario() -> None:
        one = job("a")
        one.expire_in(0.01, ServiceUnavailable("too late"))
        one.add_piece(Prediction("a", b"first"))
        assert one.stream is not None
        with pytest.raises(ServiceUnavailable, match="too late"):
            await one.stream.take()

    run(scenario)


def test_an_expiry_is_forgotten_with_the_last_piece_or_the_client() -> None:
    async def scenario() -> None:
        streamed, left = job("a"), job("b")
        for one in (streamed, left):
            one.expire_in(0.01, ServiceUnavailable("too late"))
        streamed.add_piece(Prediction("a", b"first"))
        streamed.answer(Prediction("a", b"last"))
        left.cancel()
        await asyncio.sleep(0.05)
        assert streamed.stream is not None
        assert await streamed.stream.take() == (b"last", True)
        with pytest.raises(asyncio.CancelledError):
            await left.reply()

    run(scenario)


def test_there_is_a_ticket_for_each_worker_that_waits() -> None:
    async def scenario() -> None:
        queue = JobQueue(10)
        assert queue.tickets == 0
        first = pulled(queue, 2, 5)
        assert queue.tickets == 1
        second = pulled(queue, 2, 5)
        assert queue.tickets == 2
        (one,) = filled(queue, "a")  # which the first worker holds while its batch fills
        assert queue.tickets == 1
        one.cancel()
        assert queue.tickets == 2
        filled(queue, "b")
        assert names(await first) == ["b"]
        assert queue.tickets == 1
        assert not second.done()

    run(scenario)


def test_whoever_holds_a_job_is_told_once_that_nobody_wants_it() -> None:
    async def scenario() -> None:
        told: list[str] = []
        left, expired, streaming, answered = (job(name) for name in "abcd")
        for one in (left, expired, streaming, answered):
            name = one.request.request_id
            one.on_abandoned = lambda name=name: told.append(name)  # type: ignore[misc]
        left.cancel()
        left.cancel()
        expired.expire_in(0.0, ServiceUnavailable("too late"))
        with pytest.raises(ServiceUnavailable):
            await expired.reply()
        streaming.add_piece(Prediction("c", b"1"))
        assert streaming.is_wanted
        streaming.cancel()
        answered.answer(Prediction("d", b"1"))
        answered.cancel()
        assert told == ["a", "b", "c"]
        assert not any(one.is_wanted for one in (left, expired, streaming, answered))

    run(scenario)
