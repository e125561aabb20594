"""The plain way of running: a batch, its answer, the next batch.

A worker that answers within a millisecond or two would spend half its time waiting for its next
request. So the only worker of a model is sent a request ahead, behind the one it works on; that
one has not begun while the other is unanswered, and returns to the queue if the worker dies.
"""

from collections import deque
from collections.abc import Sequence
from time import monotonic

from torchkeep.frontend.errors import WorkerFailed
from torchkeep.frontend.jobs import Job, JobQueue
from torchkeep.frontend.lookout import Lookout
from torchkeep.frontend.metrics import Metrics
from torchkeep.frontend.traffic import Traffic, checked, deliver_pieces
from torchkeep.frontend.worker_life import WorkerSettings
from torchkeep.runtime.messages import Chunk, Message

QUICK_S = 0.002  # an answer within this time earns a worker a request ahead
AHEAD = 2  # requests sent ahead


class BatchTraffic(Traffic):
    """A dead, late or garbled worker fails exactly the batch that it was at."""

    def __init__(self, settings: WorkerSettings, queue: JobQueue, metrics: Metrics) -> None:
        super().__init__(settings, queue, metrics)
        self._in_flight: deque[list[Job]] = deque()  # sent; the worker is at the first
        self._began = 0.0  # with that one
        self._is_quick = False
        # With more than one request on their way there is enough to do meanwhile.
        self._lookout = Lookout(lambda: len(self._in_flight) != 1)

    @property
    def jobs(self) -> Sequence[Job]:
        return [job for batch in self._in_flight for job in batch]

    def take(self, message: Message) -> None:
        if isinstance(message, Chunk):
            batch = self._in_flight[0]
            deliver_pieces(message, {job.request.request_id: job for job in batch})
            return
        predictions = checked(message, self._in_flight[0])
        batch = self._in_flight.popleft()
        self.unanswered = 0
        now = monotonic()
        self._is_quick, self._began = now - self._began < QUICK_S, now
        self._queue.answered(batch, predictions.items)
        self._pull_next()  # first, so that the worker computes while clients get their answers
        self._metrics.worker_metrics(predictions.metrics)
        self._deliver(predictions, batch)
        self._metrics.batch_overhead(monotonic() - now)

    def fail(self, error: WorkerFailed) -> None:
        """Answer what the worker was at; what was sent ahead goes to the next worker."""
        if not self._in_flight:
            return
        batch = self._in_flight.popleft()
        ahead = [job for later in self._in_flight for job in later]
        self._in_flight.clear()
        if self._is_stopping:  # the queue may have no next worker
            batch = [*batch, *ahead]
        else:
            self._queue.put_back(ahead)
        self._queue.answered(batch, ())
        for job in batch:
            job.fail(error)

    def _begin(self) -> None:
        self._is_quick = False
        self._pull_next()

    def _pull_next(self) -> None:
        if self._is_stopping:
            if not self._in_flight:
                self.end(None)
            return
        if not self._in_flight:
            pull = self._queue.pull(self._batch_size, self._settings.max_batch_delay_s, self._send)
            if not self._in_flight:  # which `_send` has filled if it was called
                self._pull = pull
        while self._may_send_ahead() and (jobs := self._queue.take_predictions(1)):
            self._send(jobs)

    def _may_send_ahead(self) -> bool:
        # With more workers, another might have begun with the request meanwhile.
        return (
            self._is_quick
            and 0 < len(self._in_flight) <= AHEAD
            and self._queue.consumers == 1
            and not self._in_flight[-1][0].describes
            and self._batch_size == 1
        )

    def _send(self, batch: list[Job]) -> None:
        self._pull = None
        now = monotonic()
        if not self._in_flight:
            self._began = now
        self._in_flight.append(batch)
        for job in batch:
            job.sent_at = now
        limit_s = None if batch[0].describes else self._settings.response_timeout_s
        self._post([job.request for job in batch], limit_s)
        if self._is_quick and len(self._in_flight) == 1:
            self._lookout.begin()
