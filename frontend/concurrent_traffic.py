"""Async handlers: a worker works on many requests at a time, and answers them in any order.

It is sent what there is without waiting for an answer. The client of a request that is under
way may leave: then its handler is cancelled.
"""

from collections.abc import Sequence
from functools import partial
from time import monotonic

from torchkeep.frontend.errors import WorkerFailed
from torchkeep.frontend.jobs import Job, JobQueue
from torchkeep.frontend.metrics import Metrics
from torchkeep.frontend.traffic import Traffic, checked, deliver_pieces
from torchkeep.frontend.worker_connection import WorkerDied
from torchkeep.frontend.worker_life import WorkerSettings
from torchkeep.runtime.messages import Cancel, Chunk, Message, Predictions

MAX_BATCHES = 1 << 12  # that a worker is at; TorchServe knows no limit, and so no full queue


class ConcurrentTraffic(Traffic):
    """What one batch fails of, its neighbours do not notice, unless the worker dies of it.

    TorchServe: of an async worker only the load is timed, never an answer.
    """

    def __init__(self, settings: WorkerSettings, queue: JobQueue, metrics: Metrics) -> None:
        super().__init__(settings, queue, metrics)
        self._batches: dict[str, list[Job]] = {}  # by the id of their first request
        self._jobs: dict[str, Job] = {}  # of all of them
        self._is_pulling = False

    @property
    def jobs(self) -> Sequence[Job]:
        return list(self._jobs.values())

    def take(self, message: Message) -> None:
        if isinstance(message, Chunk):
            deliver_pieces(message, self._jobs)
            return
        if not isinstance(message, Predictions) or not message.items:
            raise WorkerDied("it answered a batch with something else")
        batch = self._batches.get(message.items[0].request_id)
        if batch is None:
            raise WorkerDied("it answered requests that it was not given")
        predictions = checked(message, batch)
        self._forget(batch)
        self._queue.answered(batch, predictions.items)
        self._pull_next()
        self._metrics.worker_metrics(predictions.metrics)
        self._deliver(predictions, batch)

    def fail(self, error: WorkerFailed) -> None:
        jobs = self.jobs
        self._batches.clear()
        self._jobs.clear()
        self._queue.answered(jobs, ())
        for job in jobs:
            job.fail(error)

    def _begin(self) -> None:
        self._pull_next()

    def _pull_next(self) -> None:
        if self._is_stopping:
            if not self._batches:
                self.end(None)
            return
        # A batch that is there is handed over in the very call that asks for one.
        self._is_pulling = True
        while self.is_serving and self._pull is None and len(self._batches) < MAX_BATCHES:
            count = len(self._batches)
            pull = self._queue.pull(self._batch_size, self._settings.max_batch_delay_s, self._send)
            if len(self._batches) == count:
                self._pull = pull
        self._is_pulling = False

    def _send(self, batch: list[Job]) -> None:
        self._pull = None
        now = monotonic()
        self._batches[batch[0].request.request_id] = batch
        for job in batch:
            self._jobs[job.request.request_id] = job
            job.sent_at = now
            job.on_abandoned = partial(self._cancel, batch)
        self._post([job.request for job in batch], None)
        if not self._is_pulling:
            self._pull_next()

    def _cancel(self, batch: list[Job]) -> None:
        """A client has left. Its batch goes on as long as it has others."""
        if not any(job.is_wanted for job in batch):
            self._connection.tell(Cancel(batch[0].request.request_id))

    def _forget(self, batch: list[Job]) -> None:
        del self._batches[batch[0].request.request_id]
        for job in batch:
            del self._jobs[job.request.request_id]
            job.on_abandoned = None
