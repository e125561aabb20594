"""A worker process, seen from the frontend: fork, load, serve batches, restart.

One task runs each worker. It pulls batches from the queue of its model version, so there is
no dispatcher; a dead, late or garbled worker fails exactly the batch it had in flight.

A worker that answers within a millisecond or two would spend half its time waiting for its next
request. So the only worker of a model is sent a request ahead, behind the one it works on; that
one has not begun while the other is unanswered, and returns to the queue if the worker dies.
"""

import asyncio
import enum
import logging
import os
import time
from collections import deque
from collections.abc import Callable
from time import monotonic

from torchkeep.frontend.child_process import ChildProcess
from torchkeep.frontend.errors import ServiceUnavailable, WorkerFailed
from torchkeep.frontend.jobs import Job, JobQueue, Pull
from torchkeep.frontend.lookout import Lookout
from torchkeep.frontend.metrics import Metrics
from torchkeep.frontend.model_sandbox import ModelSandbox
from torchkeep.frontend.stage_client import ZygoteError
from torchkeep.frontend.thread_plan import ThreadPlan
from torchkeep.frontend.worker_connection import (
    LoadRefused,
    WorkerConnection,
    WorkerDied,
    WorkerLeft,
)
from torchkeep.frontend.worker_life import WorkerLife, WorkerSettings
from torchkeep.frontend.worker_origin import WorkerOrigin
from torchkeep.frontend.worker_output import WORKER_LOG
from torchkeep.runtime.messages import Chunk, Message, Predict, Predictions

# TorchServe's schedule, in seconds, by consecutive failure; /ping depends on it.
BACKOFF_S = (1, 1, 2, 3, 5, 8, 13, 21, 34, 55, 89, 144, 233, 377, 610, 987, 1597)
QUICK_S = 0.002  # an answer within this time earns a worker a request ahead
AHEAD = 2  # requests sent ahead
STATUS_REPORT_S = 0.2  # for an exit status to arrive after the connection ended


class WorkerState(enum.Enum):
    """TorchServe's five."""

    STARTED = "WORKER_STARTED"
    MODEL_LOADED = "WORKER_MODEL_LOADED"
    STOPPED = "WORKER_STOPPED"
    ERROR = "WORKER_ERROR"
    SCALED_DOWN = "WORKER_SCALED_DOWN"


TRANSITIONS = {
    WorkerState.STARTED: {WorkerState.MODEL_LOADED, WorkerState.STOPPED, WorkerState.ERROR},
    WorkerState.MODEL_LOADED: {WorkerState.STOPPED},
    WorkerState.STOPPED: {WorkerState.STARTED},
    WorkerState.ERROR: {WorkerState.STOPPED},
    WorkerState.SCALED_DOWN: set(),  # and from every state into this one
}


class WorkerProcess:
    """The handle of one worker: its owner awaits `run()` and ends it with `scale_down()`."""

    def __init__(
        self,
        worker_id: str,
        settings: WorkerSettings,
        queue: JobQueue,
        origin: WorkerOrigin,
        sandbox: ModelSandbox,
        plan: ThreadPlan,
        metrics: Metrics,
    ) -> None:
        self.worker_id = worker_id
        self.name = f"W-{worker_id}-{settings.load.model_name}_{settings.load.model_version}"
        self.pid = -1
        self.state = WorkerState.STARTED
        self.started_at = time.time()
        self.load_s: float | None = None
        self._loaded_at = 0.0
        self.engine = ""  # what runs the model, in one line
        self.last_error = ""
        self.failed_status = 500
        # Resolves once: 200 when first loaded, or the status of the first failure.
        self.first_outcome: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._settings = settings
        self._queue = queue
        self._origin = origin
        self._sandbox = sandbox
        self._plan = plan
        self._metrics = metrics
        self._task: asyncio.Task[None] | None = None
        self._ending: asyncio.Future[None] | None = None
        self._stopping = False
        self._in_flight: deque[list[Job]] = deque()  # sent; the worker is at the first
        self._began = 0.0  # with that one
        self._is_quick = False
        # With more than one request on their way there is enough to do meanwhile.
        self._lookout = Lookout(lambda: len(self._in_flight) != 1)
        self._pull: Pull | None = None  # while this worker is idle
        self._served: asyncio.Future[None] | None = None  # resolves when it serves no more
        self._failing_since: float | None = None
        self._failures = 0
        self._unanswered = 0  # requests, one after the other

    @property
    def gpu_id(self) -> int:
        """The GPU that its handler is told to use; -1 for none."""
        return self._settings.load.gpu_id

    @property
    def is_ready(self) -> bool:
        return self.state is WorkerState.MODEL_LOADED

    @property
    def is_healthy(self) -> bool:
        """False once the retry window that opened with the first failure is over."""
        if self._failing_since is None:
            return True
        return monotonic() - self._failing_since < self._settings.max_retry_timeout_s

    @property
    def is_running(self) -> bool:
        return self.state in (WorkerState.STARTED, WorkerState.MODEL_LOADED)

    @property
    def memory_bytes(self) -> int:
        """Resident memory of the process; 0 where there is none."""
        try:
            with open(f"/proc/{self.pid}/statm", encoding="ascii") as statm:
                return int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
        except (OSError, IndexError, ValueError):
            return 0

    def start(self) -> None:
        self._task = asyncio.create_task(self.run(), name=self.name)

    async def run(self) -> None:
        """Start and serve until scaled down or beyond the retry window."""
        self._tell_change("null", WorkerState.STARTED)
        try:
            while not self._stopping:
                await self._live_once()
                if self._stopping or not await self._wait_for_retry():
                    break
                self._enter(WorkerState.STARTED)
        finally:
            if not self.first_outcome.done():
                self.first_outcome.set_result(self.failed_status)

    def begin_stop(self) -> None:
        """Take no further batch; the one in flight goes on."""
        self._stopping = True
        self._enter(WorkerState.SCALED_DOWN)
        if self._pull is not None:
            self._end_serving(None)

    async def stop(self, grace_s: float, refusal: Callable[[], ServiceUnavailable]) -> None:
        """End the worker: its batch has `grace_s` seconds, then it is answered `refusal()`."""
        self.begin_stop()
        if self._task is None:
            return
        if not self._in_flight:
            grace_s = 0  # idle, loading or waiting for a retry
        await asyncio.wait([self._task], timeout=grace_s)
        for batch in self._in_flight:
            for job in batch:
                job.fail(refusal())
        if not self._task.done():
            self._task.cancel()
        await asyncio.wait([self._task])
        if self._ending is not None:
            await self._ending
        self._tell_change(self.state.value, WorkerState.STOPPED)
        self.state = WorkerState.STOPPED

    async def _live_once(self) -> None:
        """One process from fork to end. Whatever happens, nothing of it is left."""
        life = self._new_life()
        status = 500
        try:
            try:
                await self._begin(life)
            except (WorkerDied, TimeoutError) as error:
                if not life.is_shared or self._stopping:
                    raise
                await self._end(life)
                await self._origin.distrust(f"a fork of it did not start: {error!r}")
                life = self._new_life()
                await self._begin(life)
            self._become_ready()
            await self._serve(life.connection)
        except (WorkerDied, ZygoteError, TimeoutError, OSError) as error:
            if self._stopping and isinstance(error, WorkerDied):
                return
            self._tell_disconnected(life)
            if isinstance(error, LoadRefused):
                status = error.status
                self._enter(WorkerState.ERROR)
            elif not isinstance(error, TimeoutError):  # then it has yet to be ended, by us
                status = await self._status_of_failure(life.child)
            self._describe_failure(error, life.child)
            self._fail_batch(WorkerFailed(status, "Worker died."))
            if self.state is WorkerState.MODEL_LOADED or self.state is WorkerState.STARTED:
                self._enter(WorkerState.STOPPED)
        finally:
            if self._stopping:
                self._tell_disconnected(life)
            self.failed_status = status
            self._fail_batch(WorkerFailed(500, "Worker died."))
            # A task of its own, so that `stop`, which may cancel this one, can wait for it.
            self._ending = asyncio.ensure_future(self._end(life))
            await asyncio.shield(self._ending)

    def _new_life(self) -> WorkerLife:
        return WorkerLife(
            self.worker_id,
            self.name,
            self._settings,
            self._origin,
            self._sandbox,
            self._take,
            self._end_serving,
            lambda metric: self._metrics.worker_metrics([metric]),
        )

    async def _begin(self, life: WorkerLife) -> None:
        """Fork and load."""
        self.started_at = time.time()
        began = monotonic()
        self.pid = await life.fork()
        loaded = await life.load()
        self._loaded_at = monotonic()
        self.load_s = self._loaded_at - began
        self.engine = loaded.engine
        if loaded.threads > 0:
            self._plan.admit(self.pid, loaded.threads)

    async def _end(self, life: WorkerLife) -> None:
        if life.child is not None:
            self._plan.dismiss(life.child.pid)
        await life.end(is_leaving=self._stopping)

    def _become_ready(self) -> None:
        assert self.load_s is not None
        self._enter(WorkerState.MODEL_LOADED)
        if self._failing_since is not None:
            self._tell(logging.INFO, "Auto recovery succeeded, reset recoveryStartTS")
        self._failing_since = None
        self._failures = 0
        self._metrics.worker_loaded(self.name, self.load_s)
        # TorchServe: a load takes time beside the worker's own, as a batch does
        self._metrics.batch_overhead(monotonic() - self._loaded_at)
        self._tell(logging.INFO, f"ready in {self.load_s:.2f} s (pid {self.pid})")
        if not self.first_outcome.done():
            self.first_outcome.set_result(200)

    async def _serve(self, connection: WorkerConnection) -> None:
        """Answer batches until stopped. Raises what ended the connection.

        It all happens in callbacks, as every turn of the loop between a request and its worker
        is a turn in which the worker does nothing.
        """
        self._connection = connection
        self._served = asyncio.get_running_loop().create_future()
        self._is_quick = False
        self._queue.consumers += 1
        self._pull_next()
        try:
            await self._served
        finally:
            self._end_serving(None)
            self._served = None
            self._queue.consumers -= 1

    def _pull_next(self) -> None:
        if self._stopping:
            if not self._in_flight:
                self._end_serving(None)
            return
        if not self._in_flight:
            load = self._settings.load
            pull = self._queue.pull(load.batch_size, self._settings.max_batch_delay_s, self._send)
            if not self._in_flight:  # which `_send` has filled if it was called
                self._pull = pull
        while self._may_send_ahead() and (job := self._queue.take_prediction()) is not None:
            self._send([job])

    def _may_send_ahead(self) -> bool:
        # With more workers, another might have begun with the request meanwhile.
        return (
            self._is_quick
            and 0 < len(self._in_flight) <= AHEAD
            and self._queue.consumers == 1
            and not self._in_flight[-1][0].describes
            and self._settings.load.batch_size == 1
        )

    def _send(self, batch: list[Job]) -> None:
        self._pull = None
        now = monotonic()
        if not self._in_flight:
            self._began = now
        self._in_flight.append(batch)
        for job in batch:
            job.sent_at = now
        try:
            predict = Predict([job.request for job in batch])
            limit_s = None if batch[0].describes else self._settings.response_timeout_s
            self._connection.post(predict, limit_s)
        except WorkerDied as error:
            self._end_serving(error)
        if self._is_quick and len(self._in_flight) == 1:
            self._lookout.begin()

    def _take(self, message: Message) -> None:
        """A message of the worker. Raises WorkerDied for one that nobody asked for."""
        if isinstance(message, Chunk):
            self._deliver_chunk(message)
            return
        predictions = self._checked(message)
        batch = self._in_flight.popleft()
        self._unanswered = 0
        now = monotonic()
        self._is_quick, self._began = now - self._began < QUICK_S, now
        self._pull_next()  # first, so that the worker computes while clients get their answers
        self._metrics.worker_metrics(predictions.metrics)
        if predictions.status != 200:
            for job in batch:
                job.fail(WorkerFailed(predictions.status, predictions.message))
        else:
            self._count_waits(batch)
            for job, prediction in zip(batch, predictions.items, strict=True):
                job.answer(prediction)
        self._metrics.batch_overhead(monotonic() - now)

    def _count_waits(self, batch: list[Job]) -> None:
        """TorchServe: only of what was answered with a prediction."""
        name = self._settings.load.model_name
        for job in batch:
            if job.sent_at is not None and not job.describes:
                self._metrics.queue_latency(name, job.version, job.sent_at - job.accepted_at)

    def _checked(self, reply: Message) -> Predictions:
        """The answers to the requests that the worker was given, in their order."""
        if not isinstance(reply, Predictions):
            raise WorkerDied("it answered a batch with something else")
        asked = [job.request.request_id for job in self._in_flight[0]]
        if reply.status == 200 and [item.request_id for item in reply.items] != asked:
            raise WorkerDied("it answered requests that it was not given")
        return reply

    def _end_serving(self, error: Exception | None) -> None:
        pull, self._pull = self._pull, None
        if pull is not None:
            pull.cancel()
        if self._served is None or self._served.done():
            return
        if error is None:
            self._served.set_result(None)
        else:
            self._served.set_exception(error)

    def _deliver_chunk(self, chunk: Chunk) -> None:
        """Pieces for jobs of the batch in flight. Raises WorkerDied for anybody else's."""
        waiting = {job.request.request_id: job for job in self._in_flight[0]}
        jobs = [waiting.pop(item.request_id, None) for item in chunk.items]
        if not jobs or None in jobs:
            raise WorkerDied("it sent pieces of answers that nobody asked for")
        for job, piece in zip(jobs, chunk.items, strict=True):
            assert job is not None
            if chunk.status == 200:
                job.add_piece(piece)
            else:
                job.fail(WorkerFailed(chunk.status, chunk.message))

    def _fail_batch(self, error: WorkerFailed) -> None:
        """Answer what the worker was at; what was sent ahead goes to the next worker."""
        if not self._in_flight:
            return
        batch = self._in_flight.popleft()
        ahead = [job for later in self._in_flight for job in later]
        self._in_flight.clear()
        if self._stopping:  # the queue may have no next worker
            batch = [*batch, *ahead]
        else:
            self._queue.put_back(ahead)
        for job in batch:
            job.fail(error)

    async def _status_of_failure(self, child: ChildProcess | None) -> int:
        """507 for a process that was killed for its memory (or by anyone's SIGKILL)."""
        if child is not None:
            await asyncio.wait([child.exited], timeout=STATUS_REPORT_S)
            # TorchServe: exit code 137, which is also what SIGKILL from outside looks like.
            if child.exited.done() and child.exited.result() in (137, -9):
                return 507
        return 500

    def _describe_failure(self, error: Exception, child: ChildProcess | None) -> None:
        if isinstance(error, TimeoutError):
            self.last_error = "Backend worker did not respond in given time"
            self._unanswered += 1
            self._tell(
                logging.ERROR, f"Number or consecutive unsuccessful inference {self._unanswered}"
            )
            # TorchServe: these two lines, which its users' tools look for, and Java's trace.
            kind = "org.pytorch.serve.wlm.WorkerInitializationException"
            self._tell(logging.ERROR, f"Backend worker error\n{kind}: {self.last_error}")
            return
        self.last_error = str(error)
        left = isinstance(error, WorkerLeft)
        if left and child is not None and child.exited.done():
            self.last_error = f"the worker process ended with status {child.exited.result()}"
        self._tell(logging.WARNING, self.last_error)

    async def _wait_for_retry(self) -> bool:
        """Sleep through the back-off; False when the retry window is over."""
        if self.state is WorkerState.ERROR:
            self._enter(WorkerState.STOPPED)
        if not self.first_outcome.done():
            self.first_outcome.set_result(self.failed_status)
        if self._failing_since is None:
            self._failing_since = monotonic()
            self._tell(logging.INFO, f"Auto recovery start timestamp: {int(time.time() * 1000)}")
        else:
            self._tell(logging.WARNING, "Auto recovery failed again")
        if not self.is_healthy:
            self._tell(logging.WARNING, "no further retry, the retry window is over")
            return False
        delay_s = BACKOFF_S[min(self._failures, len(BACKOFF_S) - 1)]
        self._failures += 1
        self._tell(logging.WARNING, f"Retry worker: {self.worker_id} in {delay_s} seconds.")
        await asyncio.sleep(delay_s)
        return True

    def _enter(self, state: WorkerState) -> None:
        if self.state is WorkerState.SCALED_DOWN:
            return
        assert state in TRANSITIONS[self.state] or state is WorkerState.SCALED_DOWN
        self._tell_change(self.state.value, state)
        self.state = state

    def _tell(self, level: int, text: str) -> None:
        WORKER_LOG.log(level, "%s %s", self.name, text)

    def _tell_change(self, before: str, after: WorkerState) -> None:
        self._tell(logging.DEBUG, f"{self.name} State change {before} -> {after.value}")

    def _tell_disconnected(self, life: WorkerLife) -> None:
        if life.child is not None:
            what = f"{self.worker_id} Worker disconnected. {self.state.value}"
            self._tell(logging.INFO, what)
