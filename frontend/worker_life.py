"""One process of a worker, from fork to end, and what the frontend holds of it."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, replace

from torchkeep.frontend.child_process import ChildProcess
from torchkeep.frontend.model_sandbox import Cell, ModelSandbox
from torchkeep.frontend.worker_connection import LoadRefused, WorkerConnection, WorkerDied
from torchkeep.frontend.worker_origin import WorkerOrigin
from torchkeep.frontend.worker_output import WorkerOutput
from torchkeep.runtime.messages import Load, Loaded, Message, Metric

EXIT_GRACE_S = 2.0  # for a worker that was let go of to end by itself
SHARED_START_S = 10.0  # for a fork of a loaded model to answer, before it is replaced


@dataclass(frozen=True, slots=True)
class WorkerSettings:
    """What a worker needs to know of its model version; fixed for its life."""

    load: Load
    max_batch_delay_s: float
    response_timeout_s: float
    startup_timeout_s: float
    max_retry_timeout_s: float
    max_response_bytes: int


class WorkerLife:
    """Fork, load, then the connection is there to serve; `end` leaves nothing of it."""

    def __init__(
        self,
        worker_id: str,
        name: str,
        settings: WorkerSettings,
        origin: WorkerOrigin,
        sandbox: ModelSandbox,
        on_message: Callable[[Message], None],
        on_end: Callable[[Exception], None],
        on_metric: Callable[[Metric], None],
    ) -> None:
        self.connection = WorkerConnection(
            worker_id, settings.max_response_bytes, on_message, on_end
        )
        self.child: ChildProcess | None = None
        self.is_shared = False  # forked from a process that had loaded the model
        self._worker_id = worker_id
        self._name = name
        self._settings = settings
        self._origin = origin
        self._sandbox = sandbox
        self._on_metric = on_metric
        self._load = settings.load
        self._outputs: list[WorkerOutput] = []
        self._cell: Cell | None = None

    async def fork(self) -> int:
        """Start the process; returns its pid. Raises ZygoteError, or as loading does."""
        settings = self._settings
        self._cell = await self._sandbox.open_cell()
        self._load = self._cell.furnish(settings.load)
        pipes = self._sandbox.pipes(self._name, self._on_metric)
        with await self.connection.open() as theirs, pipes as (stdout, stderr):
            self.child, self.is_shared = await self._origin.fork(
                self._load,
                settings.startup_timeout_s,
                self._worker_id,
                [theirs.fileno(), stdout, stderr],
            )
        self._outputs = pipes.outputs
        return self.child.pid

    async def load(self) -> Loaded:
        """Have it load the model. Raises LoadRefused, WorkerDied, TimeoutError."""
        limit_s = self._settings.startup_timeout_s
        if self.is_shared:
            limit_s = min(limit_s, SHARED_START_S)
        reply = await self.connection.exchange(self._load, limit_s)
        if not isinstance(reply, Loaded):
            raise WorkerDied("it answered a load with something else")
        if reply.status != 200:
            status = 507 if reply.status == 507 else 500
            raise LoadRefused(self._sandbox.words(reply.message), status)
        has_words = reply.engine and self._sandbox.tells_errors
        return replace(reply, engine=self._sandbox.words(reply.engine) if has_words else "")

    async def end(self, is_leaving: bool) -> None:
        """Let go of the process, and kill it; one that leaves may end by itself first."""
        self.connection.close()
        child, self.child = self.child, None
        if child is not None:
            if is_leaving or child.exited.done():
                await asyncio.wait([child.exited], timeout=EXIT_GRACE_S)
            child.kill()
            await child.exited
        for output in self._outputs:
            output.close()
        self._outputs = []
        cell, self._cell = self._cell, None
        if cell is not None:
            await asyncio.to_thread(cell.close)
