"""Jobs, and the bounded queue of a model version that its workers pull batches from."""

import asyncio
from collections import deque
from collections.abc import Iterable
from time import monotonic

from torchkeep.frontend.errors import ServiceUnavailable, WorkerFailed
from torchkeep.frontend.piece_stream import PieceStream
from torchkeep.runtime.messages import Prediction, RequestInput

Failure = WorkerFailed | ServiceUnavailable


class Job:
    """One accepted request waiting for its reply, which may be the first piece of a stream."""

    __slots__ = ("_reply", "accepted_at", "request", "stream", "version")

    def __init__(self, request: RequestInput, version: str) -> None:
        self.request = request
        self.version = version  # as metrics label it: "default" where the client gave none
        self.accepted_at = monotonic()
        self.stream: PieceStream | None = None  # what follows the reply, where anything does
        self._reply: asyncio.Future[Prediction] = asyncio.get_running_loop().create_future()

    async def reply(self) -> Prediction:
        """The handler's answer, or the first piece of it, when there is a `stream`.

        Raises WorkerFailed where the batch failed, ServiceUnavailable where the model went
        away before a worker took the job.
        """
        return await self._reply

    def cancel(self) -> None:
        """Nobody waits any more: a job not yet sent to a worker is skipped."""
        self._reply.cancel()
        if self.stream is not None:
            self.stream.cancel()

    @property
    def is_over(self) -> bool:
        return self._reply.done()

    def add_piece(self, piece: Prediction) -> None:
        """A piece of an answer that goes on; status and headers count in the first one only."""
        if self.stream is not None:
            self.stream.put(piece.body)
        elif not self._reply.done():
            self.stream = PieceStream()
            self._reply.set_result(piece)

    def answer(self, prediction: Prediction) -> None:
        """The whole answer, or the last piece of it."""
        # The reply may arrive after the client left: then dropping it is the whole clean-up.
        if self.stream is not None:
            self.stream.end(prediction.body)
        elif not self._reply.done():
            self._reply.set_result(prediction)

    def fail(self, error: Failure) -> None:
        """An error in place of the answer, or of the rest of it."""
        if self.stream is not None:
            self.stream.fail(error)
        elif not self._reply.done():
            self._reply.set_exception(error)
            # A client that left a moment ago never looks: that is no news for the log.
            self._reply.exception()


class JobQueue:
    """A bounded FIFO. Workers pull from it, so a busy model pushes back by filling up."""

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self._jobs: deque[Job] = deque()
        self._arrived = asyncio.Event()
        # TorchServe: only one worker of a version assembles a batch at a time.
        self._assembling = asyncio.Lock()

    def __len__(self) -> int:
        return len(self._jobs)

    @property
    def is_full(self) -> bool:
        if len(self._jobs) >= self.capacity:
            self._jobs = deque(job for job in self._jobs if not job.is_over)
        return len(self._jobs) >= self.capacity

    def put(self, job: Job) -> None:
        """Append a job; the caller has looked at `is_full`."""
        self._jobs.append(job)
        self._arrived.set()

    def put_back(self, jobs: Iterable[Job]) -> None:
        """Return jobs that were taken but never sent, to the head, in their order."""
        self._jobs.extendleft(reversed(list(jobs)))
        if self._jobs:
            self._arrived.set()

    def drain(self) -> list[Job]:
        """Take everything out."""
        jobs, self._jobs = list(self._jobs), deque()
        return jobs

    async def next_batch(self, size: int, delay_s: float) -> list[Job]:
        """Wait for a first job, then up to `delay_s` seconds for more, `size` at most.

        Empty where all clients left meanwhile. Cancelled while it waits, it leaves every job
        in the queue.
        """
        async with self._assembling:
            batch = [await self._first()]
            deadline = monotonic() + delay_s
            try:
                while len(batch) < size:
                    job = self._pop() or await self._before(deadline)
                    if job is None:
                        break
                    batch.append(job)
                    # TorchServe: the clock is read only after a job was taken, so that a
                    # delay of zero or less makes batches of two.
                    if monotonic() >= deadline:
                        break
            except asyncio.CancelledError:
                self.put_back(batch)
                raise
            if size > 1:  # a client may have left while its batch was being assembled
                batch = [job for job in batch if not job.is_over]
            return batch

    async def _first(self) -> Job:
        while (job := self._pop()) is None:
            self._arrived.clear()
            await self._arrived.wait()
        return job

    async def _before(self, deadline: float) -> Job | None:
        while (left := deadline - monotonic()) > 0:
            self._arrived.clear()
            try:
                async with asyncio.timeout(left):
                    await self._arrived.wait()
            except TimeoutError:
                return None
            if (job := self._pop()) is not None:
                return job
        return None

    def _pop(self) -> Job | None:
        while self._jobs:
            job = self._jobs.popleft()
            if not job.is_over:
                return job
        return None
