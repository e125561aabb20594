"""Sequences: which of their jobs go where, and when they end."""

import asyncio
from collections.abc import Awaitable, Callable

from waiting import until

from torchkeep.frontend.jobs import Job
from torchkeep.frontend.sequences import Lane, SequenceKeys, SequenceLimits, SequenceQueue
from torchkeep.runtime.messages import Prediction, RequestInput

KEYS = SequenceKeys()
LONG_S = 60.0


def run(scenario: Callable[[], Awaitable[None]]) -> None:
    async def limited() -> None:
        async with asyncio.timeout(20):
            await scenario()

    asyncio.run(limited())


def queue_of(
    max_sequences: int = 4, max_jobs: int = 4, max_idle_s: float = LONG_S, timeout_s: float = 0
) -> SequenceQueue:
    return SequenceQueue(100, SequenceLimits(max_sequences, max_jobs, max_idle_s, timeout_s), KEYS)


def serving_lane(queue: SequenceQueue) -> Lane:
    lane = queue.open_lane()
    lane.consumers = 1
    return lane


def put(queue: SequenceQueue, name: str, sequence: str | None = None) -> Job:
    """A job whose sequence is the first letter of its name, unless given."""
    headers = {KEYS.id: name[0] if sequence is None else sequence}
    job = Job(RequestInput(name, headers, []), "default")
    queue.put(job)
    return job


def admits(queue: SequenceQueue, sequence: str) -> bool:
    return queue.has_room_for(RequestInput("r", {KEYS.id: sequence}, []))


def take(lane: Lane) -> list[Job]:
    """What a worker that is idle gets without waiting: two jobs at most."""
    batches: list[list[Job]] = []
    pull = lane.pull(10, 0, batches.append)
    if not batches:
        pull.cancel()
        return []
    return batches[0]


def names(jobs: list[Job]) -> list[str]:
    return [job.request.request_id for job in jobs]


def test_a_batch_holds_one_job_of_each_sequence_and_keeps_their_order() -> None:
    async def scenario() -> None:
        queue = queue_of()
        lane = serving_lane(queue)
        for name in ("a1", "a2", "b1", "a3", "b2"):
            put(queue, name)
        assert len(queue) == 5
        assert [names(take(lane)) for _ in range(4)] == [["a1", "b1"], ["a2", "b2"], ["a3"], []]
        assert len(queue) == 0

    run(scenario)


def test_a_sequence_stays_with_its_worker_and_new_ones_go_where_there_are_fewest() -> None:
    async def scenario() -> None:
        queue = queue_of()
        one, two = serving_lane(queue), serving_lane(queue)
        for name in ("a1", "b1", "c1", "d1"):
            put(queue, name)
        assert (names(take(one)), names(take(two))) == (["a1", "c1"], ["b1", "d1"])
        put(queue, "b2")
        assert (take(one), names(take(two))) == ([], ["b2"])

    run(scenario)


def test_a_sequence_waits_for_a_worker_that_serves() -> None:
    async def scenario() -> None:
        queue = queue_of()
        loading, later = queue.open_lane(), queue.open_lane()
        put(queue, "a1")
        put(queue, "a2")
        assert len(queue) == 2
        later.consumers = 1
        assert names(take(later)) == ["a1"]
        loading.consumers = 1
        assert (take(loading), names(take(later))) == ([], ["a2"])

    run(scenario)


def test_a_request_without_an_id_opens_a_sequence_of_its_own() -> None:
    async def scenario() -> None:
        queue = queue_of(max_sequences=2)
        lane = serving_lane(queue)
        for name, given in (("r1", {}), ("r2", {KEYS.id: ""})):
            queue.put(Job(RequestInput(name, given, []), "default"))
        headers = [job.request.headers for job in take(lane)]
        assert all(one[KEYS.start] == "true" for one in headers)
        ids = [one[KEYS.id] for one in headers]
        assert len(set(ids)) == 2
        assert all(one.startswith("ts-seq-") for one in ids)
        assert not admits(queue, "")
        assert admits(queue, ids[0])
        put(queue, "r3", ids[0])
        assert KEYS.start not in take(lane)[0].request.headers

    run(scenario)


def test_too_many_sequences_or_jobs_of_one_are_refused() -> None:
    async def scenario() -> None:
        queue = queue_of(max_sequences=2, max_jobs=1)
        lane = serving_lane(queue)
        put(queue, "a1")
        put(queue, "b1")
        assert not admits(queue, "a")
        assert not admits(queue, "c")
        batch = take(lane)
        # TorchServe: what a worker has taken waits no more
        assert admits(queue, "a")
        assert not admits(queue, "c")
        lane.answered(batch, [])
        assert not admits(queue, "c")

    run(scenario)


def test_a_sequence_ends_when_it_was_idle_for_long_enough() -> None:
    async def scenario() -> None:
        queue = queue_of(max_sequences=1, max_idle_s=0.1)
        lane = serving_lane(queue)
        put(queue, "a1")
        batch = take(lane)
        await asyncio.sleep(0.2)
        assert not admits(queue, "b")  # its job is with the worker
        lane.answered(batch, [])
        assert not admits(queue, "b")
        await until(lambda: admits(queue, "b"))
        put(queue, "b1")
        assert names(take(lane)) == ["b1"]

    run(scenario)


def test_what_waits_when_its_sequence_is_over_opens_it_anew() -> None:
    async def scenario() -> None:
        queue = queue_of(timeout_s=0.1)
        one, two = serving_lane(queue), serving_lane(queue)
        put(queue, "a1")
        put(queue, "b1")
        put(queue, "b2")
        put(queue, "c1")
        put(queue, "d1")
        taken = take(one) + take(two)
        assert names(taken) == ["a1", "c1", "b1", "d1"]
        await until(lambda: not two.sequences)
        # Two sequences with one, and b, which is new, with the other or with it.
        assert names(take(one) + take(two)) == ["b2"]
        one.answered([taken[0]], [])  # of a sequence that is over: nothing happens
        assert admits(queue, "a")

    run(scenario)


def test_an_answer_ends_the_sequences_that_it_names() -> None:
    async def scenario() -> None:
        queue = queue_of(max_sequences=2)
        lane = serving_lane(queue)
        for name in ("a1", "c1", "c2"):
            put(queue, name)
        batch = take(lane)
        ends = {KEYS.end: "a; c;unknown"}
        lane.answered(batch, [Prediction("a1", b"", headers=ends)])
        assert admits(queue, "x")
        put(queue, "x1")
        assert not admits(queue, "y")  # c is open again, for the job that waited
        assert names(take(lane)) == ["c2", "x1"]

    run(scenario)


def test_the_sequences_of_a_worker_that_is_gone_go_on_with_another() -> None:
    async def scenario() -> None:
        queue = queue_of()
        one, two = serving_lane(queue), serving_lane(queue)
        put(queue, "a1")
        put(queue, "a2")
        put(queue, "a3")
        assert names(take(one)) == ["a1"]
        ahead = one.take_predictions(1)
        assert names(ahead) == ["a2"]
        one.consumers = 0
        one.worker_left()
        one.put_back(ahead)
        assert [names(take(two)) for _ in range(3)] == [["a2"], ["a3"], []]

    run(scenario)


def test_a_client_that_leaves_does_not_hold_up_its_sequence() -> None:
    async def scenario() -> None:
        queue = queue_of(max_sequences=1, max_idle_s=0.05)
        lane = serving_lane(queue)
        jobs = [put(queue, name) for name in ("a1", "a2", "a3")]
        jobs[0].cancel()
        jobs[1].cancel()
        assert len(queue) == 1
        assert names(take(lane)) == ["a3"]
        lane.answered([jobs[2]], [])
        put(queue, "a4").cancel()
        await until(lambda: admits(queue, "b"))

    run(scenario)


def test_a_client_that_leaves_a_batch_to_be_makes_room_for_the_next() -> None:
    async def scenario() -> None:
        queue = queue_of()
        lane = serving_lane(queue)
        batches: list[list[Job]] = []
        lane.pull(3, LONG_S, batches.append)
        first = put(queue, "a1")
        put(queue, "a2")
        first.cancel()
        put(queue, "b1")
        assert [names(batch) for batch in batches] == [["a2", "b1"]]

    run(scenario)


def test_a_worker_that_stops_while_it_waits_takes_no_job_with_it() -> None:
    async def scenario() -> None:
        queue = queue_of()
        one = serving_lane(queue)
        pull = one.pull(3, LONG_S, lambda _: None)
        put(queue, "a1")
        put(queue, "b1")
        put(queue, "a2")
        pull.cancel()
        one.consumers = 0
        one.worker_left()
        two = serving_lane(queue)
        assert [sorted(names(take(two))) for _ in range(2)] == [["a1", "b1"], ["a2"]]

    run(scenario)


def test_draining_takes_all_out_and_ends_all() -> None:
    async def scenario() -> None:
        queue = queue_of(max_sequences=2)
        lane = serving_lane(queue)
        for name in ("a1", "a2", "b1"):
            put(queue, name)
        assert sorted(names(queue.drain())) == ["a1", "a2", "b1"]
        assert (len(queue), take(lane), admits(queue, "c")) == (0, [], True)

    run(scenario)


def test_a_description_leaves_no_sequence_open() -> None:
    async def scenario() -> None:
        queue = queue_of(max_sequences=1)
        lane = serving_lane(queue)
        job = Job(RequestInput("d", {}, []), "default", describes=True)
        queue.put(job)
        lane.answered(take(lane), [])
        assert admits(queue, "a")

    run(scenario)


def test_tickets_are_those_of_the_workers_that_wait() -> None:
    async def scenario() -> None:
        queue = queue_of()
        one, two = serving_lane(queue), serving_lane(queue)
        assert queue.tickets == 0
        one.pull(2, LONG_S, lambda _: None)
        two.pull(2, LONG_S, lambda _: None)
        assert queue.tickets == 2
        put(queue, "a1")
        assert queue.tickets == 1

    run(scenario)
