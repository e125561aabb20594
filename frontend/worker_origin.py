"""Where the workers of one model version are forked from.

A stage of the zygote that has the imports the handler needs; or, where forks of a loaded
model are as good as loading it again, a *model stage*: a process that has loaded it once,
with one thread, and whose forks share its weights. A fork is ready in a tenth of a second
and costs the memory it writes to, instead of a whole model. A model with an interpreter of
its own gets a new process of that one, because libraries imported here would win over its own.
"""

import asyncio
import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass

from torchkeep.frontend.child_process import ChildProcess
from torchkeep.frontend.model_sandbox import Cell, ModelSandbox
from torchkeep.frontend.stage_client import StageClient, ZygoteError
from torchkeep.frontend.worker_connection import LoadRefused
from torchkeep.frontend.worker_output import WorkerOutput
from torchkeep.frontend.zygote_client import Needs, ZygoteClient
from torchkeep.runtime.messages import Load, pack

log = logging.getLogger(__name__)


@dataclass(slots=True)
class _ModelStage:
    """A process that has loaded the model, and what the frontend holds of it."""

    client: StageClient
    outputs: list[WorkerOutput]
    cell: Cell

    @property
    def is_alive(self) -> bool:
        child = self.client.child
        return child is not None and not child.exited.done()

    async def end(self) -> None:
        self.client.close()
        if self.client.child is not None:
            self.client.child.kill()
            await self.client.child.exited
        for output in self.outputs:
            output.close()
        await asyncio.to_thread(self.cell.close)


class WorkerOrigin:
    """Forks workers, and owns the model stage that some of them come from."""

    def __init__(
        self,
        zygote: ZygoteClient,
        name: str,
        wants_sharing: bool | None,
        has_ipex_model: bool,
        sandbox: ModelSandbox,
        interpreter: str | None = None,
        libraries: Sequence[str] = (),
    ) -> None:
        self._zygote = zygote
        self._name = name  # of the model stage, in logs
        self._wants_sharing = wants_sharing  # None: only where it is known to be safe
        self._has_ipex_model = has_ipex_model
        self._sandbox = sandbox
        self._interpreter = interpreter  # of its own; such a worker is no fork
        self._libraries = libraries  # where that one looks first for what a worker runs on
        self._needs: Needs | None = None  # the archive does not change, and reading it takes time
        self._stage: _ModelStage | None = None
        self._growing: asyncio.Task[_ModelStage | None] | None = None

    async def fork(
        self, load: Load, startup_timeout_s: float, worker_id: str, descriptors: Sequence[int]
    ) -> tuple[ChildProcess, bool]:
        """A worker that owns (connection, stdout, stderr), and whether it shares weights.

        Raises LoadRefused and TimeoutError as loading does, ZygoteError.
        """
        if self._interpreter is not None and await self._interpreter_works(self._interpreter):
            spawned = self._zygote.spawn(
                self._interpreter, worker_id, descriptors, load.environment, self._libraries
            )
            return spawned, False
        if self._needs is None:
            self._needs = await self._zygote.needs_of(
                load.handler, load.model_dir, self._has_ipex_model
            )
        needs = self._needs
        # IPEX packs weights for one number of threads, and a parent of forks may have but one.
        if load.threads == 1 and (
            needs.can_share if self._wants_sharing is None else self._wants_sharing
        ):
            stage = await self._model_stage(needs.stage, load, startup_timeout_s)
            if stage is not None:
                try:
                    child = await self._zygote.fork_from(stage.client, worker_id, descriptors)
                    return child, True
                except ZygoteError as error:
                    await self.distrust(str(error))
        return await self._zygote.fork(needs.stage, worker_id, descriptors), False

    async def distrust(self, reason: str) -> None:
        """Fork no more workers from a loaded model: the next ones load it themselves."""
        log.warning("%s: weights are no longer shared: %s", self._name, self._sandbox.words(reason))
        self._wants_sharing = False
        await self.close()

    async def close(self) -> None:
        """End the model stage; the next fork may grow a new one."""
        growing, self._growing = self._growing, None
        if growing is not None:
            growing.cancel()
            await asyncio.wait([growing])
        stage, self._stage = self._stage, None
        if stage is not None:
            await stage.end()

    async def _interpreter_works(self, interpreter: str) -> bool:
        if await self._zygote.can_spawn(interpreter, self._libraries):
            return True
        log.warning(
            "%s: %s cannot import torchkeep, so the server's own Python runs this model",
            self._name,
            interpreter,
        )
        self._interpreter = None
        return False

    async def _model_stage(
        self, parent: str, load: Load, startup_timeout_s: float
    ) -> _ModelStage | None:
        """The stage that has loaded the model; None where its forks could not be trusted."""
        if self._stage is not None and self._stage.is_alive:
            return self._stage
        if self._growing is None:
            await self.close()
            growing = self._grow(parent, load, startup_timeout_s)
            self._growing = asyncio.create_task(growing, name=f"{self._name} stage")
        # All workers that start now wait for the same load, and share its failure.
        growing_now = self._growing
        try:
            return await asyncio.shield(growing_now)
        finally:
            if growing_now.done() and self._growing is growing_now:
                self._growing = None

    async def _grow(self, parent: str, load: Load, startup_timeout_s: float) -> _ModelStage | None:
        stage = await self._fork_stage(parent, load)
        try:
            async with asyncio.timeout(startup_timeout_s):
                words = await stage.client.first_words()
            match words:
                case {"loaded": [200, str()]}:
                    self._stage = stage
                    return stage
                case {"loaded": [int(status), str(message)]}:
                    raise LoadRefused(self._sandbox.words(message), 507 if status == 507 else 500)
            reason = self._sandbox.words(
                str(words.get("unsafe", "it did not say that it has loaded"))
            )
        except ZygoteError:
            # It ended during the load: a worker that loads by itself will tell how.
            reason = "the process that loaded it ended"
        except BaseException:
            await asyncio.shield(stage.end())
            raise
        await asyncio.shield(stage.end())
        log.warning("%s: weights cannot be shared: %s", self._name, reason)
        self._wants_sharing = False
        return None

    async def _fork_stage(self, parent: str, load: Load) -> _ModelStage:
        cell = await self._sandbox.open_cell()
        pipes = self._sandbox.pipes(self._name)
        load_file = _in_memory(cell.furnish(load))
        try:
            with pipes as (stdout, stderr):
                client = await self._zygote.grow_model(parent, load_file, stdout, stderr)
        except BaseException:
            cell.close()
            raise
        finally:
            os.close(load_file)
        return _ModelStage(client, pipes.outputs, cell)


def _in_memory(load: Load) -> int:
    """A file in memory that holds the packed message: it may be too long for a control socket."""
    metadata, _ = pack(load)
    descriptor = os.memfd_create("load")
    with open(descriptor, "wb", closefd=False) as file:
        file.write(metadata)
    return descriptor
