"""Continuous batching: a worker answers step by step, and requests join between two steps.

Each step takes every job that is not finished, and new ones as far as they fit. A job that the
worker knows already is sent without its parameters: its handler keeps what it needs. Pieces come
as a `Chunk`, finished answers as the `Predictions` that end the step.
"""

from collections.abc import Sequence
from time import monotonic

from torchkeep.frontend.errors import WorkerFailed
from torchkeep.frontend.jobs import Job, JobQueue
from torchkeep.frontend.metrics import Metrics
from torchkeep.frontend.traffic import Traffic, deliver_pieces
from torchkeep.frontend.worker_connection import WorkerDied
from torchkeep.frontend.worker_life import WorkerSettings
from torchkeep.runtime.messages import Chunk, Message, Predictions, RequestInput


class StepTraffic(Traffic):
    """A worker that is late, dead or garbled fails all that it was at."""

    def __init__(self, settings: WorkerSettings, queue: JobQueue, metrics: Metrics) -> None:
        super().__init__(settings, queue, metrics)
        self._unfinished: list[Job] = []

    @property
    def jobs(self) -> Sequence[Job]:
        return self._unfinished

    def take(self, message: Message) -> None:
        if isinstance(message, Chunk):
            deliver_pieces(message, self._by_id())
            self._queue.answered((), message.items)
            return
        if not isinstance(message, Predictions):
            raise WorkerDied("it answered a step with something else")
        waiting = self._by_id()
        if message.status == 200:
            done = [waiting.pop(item.request_id, None) for item in message.items]
        else:
            done, waiting = list(waiting.values()), {}
        finished = [job for job in done if job is not None]
        if len(finished) < len(done):
            raise WorkerDied("it answered requests that it was not given")
        self.unanswered = 0
        self._unfinished = list(waiting.values())
        self._queue.answered(finished, message.items)
        self._step()  # first, so that the worker computes while clients get their answers
        self._metrics.worker_metrics(message.metrics)
        self._deliver(message, finished)

    def fail(self, error: WorkerFailed) -> None:
        jobs, self._unfinished = self._unfinished, []
        self._queue.answered(jobs, ())
        for job in jobs:
            job.fail(error)

    def _begin(self) -> None:
        self._step()

    def _step(self) -> None:
        abandoned = [job for job in self._unfinished if not job.is_wanted]
        if abandoned:
            self._unfinished = [job for job in self._unfinished if job.is_wanted]
            self._queue.answered(abandoned, ())
        if self._unfinished:
            room = self._batch_size - len(self._unfinished)
            self._send([] if self._is_stopping else self._queue.take_predictions(room))
        elif self._is_stopping:
            self.end(None)
        else:
            pull = self._queue.pull(self._batch_size, self._settings.max_batch_delay_s, self._send)
            if not self._unfinished:  # which `_send` has filled if it was called
                self._pull = pull

    def _send(self, new: list[Job]) -> None:
        self._pull = None
        known = [
            RequestInput(job.request.request_id, job.request.headers, [])
            for job in self._unfinished
        ]
        self._unfinished += new
        now = monotonic()
        for job in new:
            job.sent_at = now
        describes = bool(new) and new[0].describes  # which is alone then
        limit_s = None if describes else self._settings.response_timeout_s
        self._post(known + [job.request for job in new], limit_s)

    def _by_id(self) -> dict[str, Job]:
        return {job.request.request_id: job for job in self._unfinished}
