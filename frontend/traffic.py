"""What passes between the frontend and one worker while it serves.

A way of running is a class of its own: `BatchTraffic` for the plain one, `StepTraffic` for
continuous batching, `ConcurrentTraffic` for async handlers. Each pulls jobs from a queue, sends
them, and gives their answers back; it outlives the worker's processes, of which it sees one
connection after the other. Which jobs may go together is the queue's affair: see
`SequenceQueue`.
"""

import abc
import asyncio
from collections.abc import Mapping, Sequence

from torchkeep.frontend.errors import WorkerFailed
from torchkeep.frontend.jobs import Job, JobQueue, Pull
from torchkeep.frontend.metrics import Metrics
from torchkeep.frontend.worker_connection import WorkerConnection, WorkerDied
from torchkeep.frontend.worker_life import WorkerSettings
from torchkeep.runtime.messages import (
    Chunk,
    Message,
    Predict,
    Predictions,
    RequestInput,
)


class Traffic(abc.ABC):
    """Serves while `serve` runs, until `stop` or the end of the connection.

    It all happens in callbacks, as every turn of the loop between a request and its worker
    is a turn in which the worker does nothing.
    """

    def __init__(self, settings: WorkerSettings, queue: JobQueue, metrics: Metrics) -> None:
        self._settings = settings
        self._model_name = settings.load.model_name
        self._batch_size = settings.load.batch_size
        self._queue = queue
        self._metrics = metrics
        self.unanswered = 0  # timeouts, one after the other
        self._is_stopping = False
        self._pull: Pull | None = None  # while the worker could be sent more than there is
        self._served: asyncio.Future[None] | None = None  # resolves when it serves no more

    @property
    @abc.abstractmethod
    def jobs(self) -> Sequence[Job]:
        """What the worker has been sent, and has not answered to the end."""

    @abc.abstractmethod
    def take(self, message: Message) -> None:
        """A message of the worker. Raises WorkerDied for one that nobody asked for."""

    @abc.abstractmethod
    def fail(self, error: WorkerFailed) -> None:
        """Give the error to all that the worker was at: there will be no more answers."""

    @abc.abstractmethod
    def _begin(self) -> None:
        """A worker has nothing to do: have it get something."""

    @property
    def is_serving(self) -> bool:
        return self._served is not None and not self._served.done()

    async def serve(self, connection: WorkerConnection) -> None:
        """Have the worker answer jobs until stopped. Raises what ended the connection."""
        self._connection = connection
        self._served = asyncio.get_running_loop().create_future()
        self._queue.consumers += 1
        self._begin()
        try:
            await self._served
        finally:
            self.end(None)
            self._served = None
            self._queue.consumers -= 1
            self._queue.worker_left()

    def stop(self) -> None:
        """Take no further jobs; what was sent is answered."""
        self._is_stopping = True
        self._stop_pulling()
        if not self.jobs:
            self.end(None)

    def end(self, error: Exception | None) -> None:
        """Serve no more; `error` is what ended the connection."""
        self._stop_pulling()
        if self._served is None or self._served.done():
            return
        if error is None:
            self._served.set_result(None)
        else:
            self._served.set_exception(error)

    def _stop_pulling(self) -> None:
        pull, self._pull = self._pull, None
        if pull is not None:
            pull.cancel()

    def _post(self, requests: list[RequestInput], limit_s: float | None) -> None:
        try:
            self._connection.post(Predict(requests), limit_s)
        except WorkerDied as error:
            self.end(error)

    def _deliver(self, predictions: Predictions, batch: Sequence[Job]) -> None:
        """The answers to these jobs, in their order, or the error that all of them share."""
        if predictions.status != 200:
            for job in batch:
                job.fail(WorkerFailed(predictions.status, predictions.message))
            return
        self._count_waits(batch)
        for job, prediction in zip(batch, predictions.items, strict=True):
            job.answer(prediction)

    def _count_waits(self, batch: Sequence[Job]) -> None:
        """TorchServe: only of what was answered with a prediction."""
        for job in batch:
            if job.sent_at is not None and not job.describes:
                waited_s = job.sent_at - job.accepted_at
                self._metrics.queue_latency(self._model_name, job.version, waited_s)


def deliver_pieces(chunk: Chunk, waiting: Mapping[str, Job]) -> None:
    """Pieces for jobs that a worker is at. Raises WorkerDied for anybody else's."""
    ids = {item.request_id for item in chunk.items}
    if not chunk.items or len(ids) < len(chunk.items) or not ids <= waiting.keys():
        raise WorkerDied("it sent pieces of answers that nobody asked for")
    for piece in chunk.items:
        job = waiting[piece.request_id]
        if chunk.status == 200:
            job.add_piece(piece)
        else:
            job.fail(WorkerFailed(chunk.status, chunk.message))


def checked(reply: Message, batch: Sequence[Job]) -> Predictions:
    """The answers to these jobs, in their order. Raises WorkerDied for anything else."""
    if not isinstance(reply, Predictions):
        raise WorkerDied("it answered a batch with something else")
    asked = [job.request.request_id for job in batch]
    if reply.status == 200 and [item.request_id for item in reply.items] != asked:
        raise WorkerDied("it answered requests that it was not given")
    return reply
