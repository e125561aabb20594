"""Jobs, and the bounded queue of a model version that its workers pull batches from."""

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Sequence
from time import monotonic

from torchkeep.frontend.errors import ServiceUnavailable, WorkerFailed
from torchkeep.frontend.piece_stream import PieceStream
from torchkeep.runtime.messages import Prediction, RequestInput

log = logging.getLogger(__name__)

Failure = WorkerFailed | ServiceUnavailable


class Job:
    """One accepted request waiting for its reply, which may be the first piece of a stream."""

    __slots__ = (
        "_deliver",
        "_expiry",
        "_outcome",
        "_waiter",
        "accepted_at",
        "describes",
        "is_over",
        "on_abandoned",
        "request",
        "sent_at",
        "stream",
        "version",
    )

    def __init__(self, request: RequestInput, version: str, describes: bool = False) -> None:
        self.request = request
        # Asks the handler about itself. TorchServe: alone in its batch, and for as long as it takes
        self.describes = describes
        self.version = version  # as metrics label it: "default" where the client gave none
        self.accepted_at = monotonic()
        self.stream: PieceStream | None = None  # what follows the reply, where anything does
        self.is_over = False  # answered, or nobody waits any more
        # Whoever holds the job is told that nobody waits for its answer, or for the rest of it.
        self.on_abandoned: Callable[[], None] | None = None
        self.sent_at: float | None = None  # to a worker
        self._outcome: Prediction | Failure | None = None
        self._deliver: Callable[[Prediction | Failure], None] | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._expiry: asyncio.TimerHandle | None = None

    def expire_in(self, seconds: float, error: Failure) -> None:
        """Fail with this error unless the answer, to its last piece, is there by then."""
        self._expiry = asyncio.get_running_loop().call_later(seconds, self._expire, error)

    @property
    def is_wanted(self) -> bool:
        """Whether anybody waits for the answer, or for the rest of it."""
        return not self.is_over if self.stream is None else not self.stream.is_over

    def when_answered(self, deliver: Callable[[Prediction | Failure], None]) -> None:
        """Call `deliver` with the reply, or with the error in its place: once, perhaps at once.

        After `cancel` it is not called. It must not raise.
        """
        if self._outcome is not None:
            deliver(self._outcome)
        else:
            self._deliver = deliver

    async def reply(self) -> Prediction:
        """The handler's answer, or the first piece of it, when there is a `stream`.

        Raises WorkerFailed where the batch failed, ServiceUnavailable where the model went
        away before a worker took the job.
        """
        if self._outcome is None:
            self._waiter = asyncio.get_running_loop().create_future()
            if self.is_over:
                self._waiter.cancel()
            await self._waiter
        assert self._outcome is not None
        if isinstance(self._outcome, Prediction):
            return self._outcome
        raise self._outcome

    def cancel(self) -> None:
        """Nobody waits any more: a job not yet sent to a worker is skipped."""
        self.is_over = True
        self._deliver = None
        self._forget_expiry()
        if self._waiter is not None:
            self._waiter.cancel()
        if self.stream is not None:
            self.stream.cancel()
        on_abandoned, self.on_abandoned = self.on_abandoned, None
        if on_abandoned is not None:
            on_abandoned()

    def add_piece(self, piece: Prediction) -> None:
        """A piece of an answer that goes on; status and headers count in the first one only."""
        if self.stream is not None:
            self.stream.put(piece.body)
        elif not self.is_over:
            self.stream = PieceStream()
            self._end(piece)

    def answer(self, prediction: Prediction) -> None:
        """The whole answer, or the last piece of it."""
        # The reply may arrive after the client left: then dropping it is the whole clean-up.
        self._forget_expiry()
        self.on_abandoned = None
        if self.stream is not None:
            self.stream.end(prediction.body)
        elif not self.is_over:
            self._end(prediction)

    def fail(self, error: Failure) -> None:
        """An error in place of the answer, or of the rest of it."""
        self._forget_expiry()
        self.on_abandoned = None
        if self.stream is not None:
            self.stream.fail(error)
        elif not self.is_over:
            self._end(error)

    def _expire(self, error: Failure) -> None:
        is_sent = self.sent_at is not None
        what = "response for inference request" if is_sent else "inference request"
        log.warning("Drop %s %s due to client timeout", what, self.request.request_id)
        on_abandoned = self.on_abandoned
        self.fail(error)
        if on_abandoned is not None:
            on_abandoned()

    def _forget_expiry(self) -> None:
        if self._expiry is not None:
            self._expiry.cancel()
            self._expiry = None

    def _end(self, outcome: Prediction | Failure) -> None:
        self.is_over = True
        self._outcome = outcome
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)
        deliver, self._deliver = self._deliver, None
        if deliver is not None:
            deliver(outcome)


class JobQueue:
    """A bounded FIFO. Workers pull from it, so a busy model pushes back by filling up.

    A batch is handed over in the very call that completes it: the job of an idle worker is on
    its way before its client's task goes on.
    """

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self._jobs: deque[Job] = deque()
        # TorchServe: only one worker of a version assembles a batch at a time, the first here.
        self._pulls: deque[Pull] = deque()
        self.consumers = 0  # workers that serve it

    def __len__(self) -> int:
        return len(self._jobs)

    def has_room_for(self, request: RequestInput) -> bool:
        """Whether a job with this request may be put."""
        if len(self._jobs) >= self.capacity:
            self._jobs = deque(job for job in self._jobs if not job.is_over)
        return len(self._jobs) < self.capacity

    @property
    def tickets(self) -> int:
        """How many jobs there are idle workers for."""
        return len(self._pulls) - sum(pull.jobs_waiting for pull in self._pulls)

    def put(self, job: Job) -> None:
        """Append a job; the caller has asked `has_room_for`."""
        self._jobs.append(job)
        self._feed()

    def drain(self) -> list[Job]:
        """Take everything out."""
        jobs, self._jobs = list(self._jobs), deque()
        return jobs

    def pull(self, size: int, delay_s: float, take: Callable[[list[Job]], None]) -> "Pull":
        """Ask for a batch: a first job, then for up to `delay_s` seconds more, `size` at most.

        `take` gets it, once, perhaps before this returns, and must not raise. Jobs whose
        clients have left are not in it.
        """
        pull = Pull(self, size, delay_s, take)
        self._pulls.append(pull)
        self._feed()
        return pull

    def take_predictions(self, count: int) -> list[Job]:
        """The next jobs, `count` at most, and none that asks for something else."""
        jobs: list[Job] = []
        while self._jobs and len(jobs) < count:
            if self._jobs[0].is_over:
                self._jobs.popleft()
            elif self._jobs[0].describes:
                break
            else:
                jobs.append(self._jobs.popleft())
        return jobs

    def answered(self, jobs: Sequence[Job], items: Sequence[Prediction]) -> None:
        """A worker is done with jobs that it took; these items are answers, or pieces of some."""

    def worker_left(self) -> None:
        """Whoever served it serves no more, for now or for good."""

    def put_back(self, jobs: Sequence[Job]) -> None:
        """Return what was taken to the head of the queue, in order."""
        for job in jobs:
            job.sent_at = None
        self._jobs.extendleft(reversed(jobs))
        self._feed()

    def _feed(self) -> None:
        while self._pulls and self._pulls[0].assemble(self._jobs):
            self._pulls.popleft().hand_over()

    def _give_back(self, pull: "Pull", jobs: Sequence[Job]) -> None:
        self._pulls.remove(pull)
        self.put_back(jobs)


class Pull:
    """A worker's wait for a batch."""

    __slots__ = ("_batch", "_deadline", "_delay_s", "_queue", "_size", "_take", "_timer")

    def __init__(
        self, queue: JobQueue, size: int, delay_s: float, take: Callable[[list[Job]], None]
    ) -> None:
        self._queue = queue
        self._size = size
        self._delay_s = delay_s
        self._take = take
        self._batch: list[Job] = []
        self._deadline = 0.0
        self._timer: asyncio.TimerHandle | None = None

    @property
    def jobs_waiting(self) -> int:
        """How many of the jobs taken so far still have a client."""
        return sum(not job.is_over for job in self._batch)

    def cancel(self) -> None:
        """Wait no more. What was assembled so far returns to the head of the queue, in order."""
        self._stop_timer()
        batch, self._batch = self._batch, []
        self._queue._give_back(self, batch)

    def assemble(self, jobs: deque[Job]) -> bool:
        """Move jobs into the batch; whether it is complete."""
        batch = self._batch
        while len(batch) < self._size:
            if not jobs:
                return self._is_due()
            if batch and jobs[0].describes:
                if self._has_clients():
                    return True
                batch = self._batch
            job = jobs.popleft()
            if job.is_over:
                continue
            batch.append(job)
            if self._size == 1 or job.describes:
                return True
            if len(batch) == 1:
                self._deadline = monotonic() + self._delay_s
            # TorchServe: the clock is read only after a job was taken, so that a delay of
            # zero or less makes batches of two.
            elif monotonic() >= self._deadline:
                break
        return self._has_clients()

    def hand_over(self) -> None:
        self._stop_timer()
        batch, self._batch = self._batch, []
        self._take(batch)

    def _is_due(self) -> bool:
        """With nothing more to take: whether the batch goes as it is, or waits."""
        if not self._batch:
            return False
        if monotonic() < self._deadline:
            if self._timer is None:
                self._timer = asyncio.get_running_loop().call_later(self._delay_s, self._expire)
            return False
        return self._has_clients()

    def _has_clients(self) -> bool:
        """Leave out who has left meanwhile; where nobody is left, the wait begins anew."""
        self._batch = [job for job in self._batch if not job.is_over]
        if not self._batch:
            self._stop_timer()
        return bool(self._batch)

    def _expire(self) -> None:
        self._timer = None
        self._deadline = 0.0  # the loop's clock may be a little ahead of ours
        self._queue._feed()

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
