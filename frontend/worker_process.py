"""A worker process, seen from the frontend: fork, load, serve, restart.

One task runs each worker. What it is sent while it serves is its `Traffic`, which pulls jobs
from the queue of its model version, so there is no dispatcher.
"""

import asyncio
import enum
import logging
import os
import time
from collections.abc import Callable
from time import monotonic

from torchkeep.frontend.child_process import ChildProcess
from torchkeep.frontend.errors import ServiceUnavailable, WorkerFailed
from torchkeep.frontend.metrics import Metrics
from torchkeep.frontend.model_sandbox import ModelSandbox
from torchkeep.frontend.stage_client import ZygoteError
from torchkeep.frontend.thread_plan import ThreadPlan
from torchkeep.frontend.traffic import Traffic
from torchkeep.frontend.worker_connection import (
    LoadRefused,
    WorkerDied,
    WorkerLeft,
)
from torchkeep.frontend.worker_life import WorkerLife, WorkerSettings
from torchkeep.frontend.worker_origin import WorkerOrigin
from torchkeep.frontend.worker_output import WORKER_LOG

# TorchServe's schedule, in seconds, by consecutive failure; /ping depends on it.
BACKOFF_S = (1, 1, 2, 3, 5, 8, 13, 21, 34, 55, 89, 144, 233, 377, 610, 987, 1597)
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
        traffic: Traffic,
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
        self._traffic = traffic
        self._origin = origin
        self._sandbox = sandbox
        self._plan = plan
        self._metrics = metrics
        self._task: asyncio.Task[None] | None = None
        self._ending: asyncio.Future[None] | None = None
        self._stopping = False
        self._failing_since: float | None = None
        self._failures = 0

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
        self._traffic.stop()

    async def stop(self, grace_s: float, refusal: Callable[[], ServiceUnavailable]) -> None:
        """End the worker: its batch has `grace_s` seconds, then it is answered `refusal()`."""
        self.begin_stop()
        if self._task is None:
            return
        if not self._traffic.jobs:
            grace_s = 0  # idle, loading or waiting for a retry
        await asyncio.wait([self._task], timeout=grace_s)
        for job in self._traffic.jobs:
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
            await self._traffic.serve(life.connection)
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
            self._traffic.fail(WorkerFailed(status, "Worker died."))
            if self.state is WorkerState.MODEL_LOADED or self.state is WorkerState.STARTED:
                self._enter(WorkerState.STOPPED)
        finally:
            if self._stopping:
                self._tell_disconnected(life)
            self.failed_status = status
            self._traffic.fail(WorkerFailed(500, "Worker died."))
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
            self._traffic.take,
            self._traffic.end,
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
            self._traffic.unanswered += 1
            count = self._traffic.unanswered
            self._tell(logging.ERROR, f"Number or consecutive unsuccessful inference {count}")
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
