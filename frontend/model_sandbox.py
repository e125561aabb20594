"""How the processes of one model version are confined, and what they need for it.

Decided here and carried out by `backend/confine.py`: the level, a scratch directory for each
process, a user of its own where the server is root, and where a handler's words may go.
"""

import asyncio
import logging
import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from torchkeep.frontend.handler_log import HandlerLog
from torchkeep.frontend.output_pace import OutputPace
from torchkeep.frontend.sandbox_policy import SandboxPolicy
from torchkeep.frontend.worker_connection import LoadRefused
from torchkeep.frontend.worker_output import OutputPipes, as_one_line
from torchkeep.frontend.worker_users import WorkerUsers, closed_to_others
from torchkeep.modelstore.opening import ModelDir
from torchkeep.modelstore.unpack_area import UnpackDir
from torchkeep.runtime.messages import Load, Metric, Sandbox

log = logging.getLogger(__name__)

UNTOLD = "the handler failed, and its own words stay inside (handler_log=console tells them)"


class ModelSandbox:
    """Furnishes a cell for each process of a model version."""

    def __init__(
        self,
        policy: SandboxPolicy,
        name: str,
        model_dir: ModelDir,
        wants_network: bool,
        interpreter: str | None = None,
        pace: OutputPace | None = None,
    ) -> None:
        self._policy = policy
        self._pace = pace  # of what all models print
        self._name = name  # in logs
        self._model_dir = model_dir
        self._wants_network = wants_network
        self._interpreter = interpreter  # of the model's own
        self.level = policy.level
        if not self.level:
            self.level = "strict" if model_dir.sealed else "standard"
        self.handler_log = policy.handler_log
        if not self.handler_log:
            self.handler_log = "memory" if self.level == "strict" else "console"
        self.memory = HandlerLog(name) if self.handler_log == "memory" else None
        self._gid = 0  # of the model directory, once it is given to its workers
        self._users: WorkerUsers | None = None
        self._preparing: asyncio.Task[None] | None = None  # once: later, workers are there

    @property
    def tells_errors(self) -> bool:
        """Whether what a handler says may leave it: in logs, descriptions and error bodies."""
        return self.handler_log == "console"

    def words(self, text: str) -> str:
        """A text that a process of the model wrote, as one line, or what stands for it."""
        return as_one_line(text) if self.tells_errors else UNTOLD

    def pipes(self, name: str, on_metric: Callable[[Metric], None] | None = None) -> OutputPipes:
        """Where a process of this model writes; `name` is what its lines begin with."""
        is_dropped = self.handler_log == "drop"
        return OutputPipes(name, self.memory, is_dropped, on_metric, self._pace)

    async def open_cell(self) -> "Cell":
        """A sandbox for one process. Raises LoadRefused where it cannot be as strict as asked."""
        sandbox = Sandbox(level=self.level, tells_errors=self.tells_errors)
        if self.level == "off":
            return Cell(sandbox)
        self._refuse_what_cannot_be()
        if self._preparing is None:
            self._preparing = asyncio.create_task(asyncio.to_thread(self._prepare))
        scratch: UnpackDir | None = None
        try:
            await asyncio.shield(self._preparing)
            scratch = self._model_dir.unpacked.create_beside()
            uid = self._users.take() if self._users is not None else 0
        except OSError as error:
            if scratch is not None:
                scratch.remove()
            raise LoadRefused(f"no sandbox for {self._name}: {error}", 500) from error
        if uid:
            os.chown(scratch.path, uid, self._gid)
        sandbox = replace(
            sandbox,
            allows_network=self._wants_network,
            hidden=[str(path) for path in self._hidden()],
            scratch=str(scratch.path),
            uid=uid,
            gid=self._gid,
        )
        return Cell(sandbox, scratch, self._users)

    def close(self) -> None:
        """When no process of the model is left. May be called twice."""
        if self._users is not None and self._gid:
            self._users.give_back(self._gid)
            self._gid = 0
        if self.memory is not None:
            self.memory.close()

    def _refuse_what_cannot_be(self) -> None:
        if self.level != "strict":
            return
        if missing := self._policy.layers.missing_for_strict:
            raise LoadRefused(missing, 500)
        if self._wants_network and not self._policy.allows_network:
            raise LoadRefused(
                "model-config.yaml asks for sandbox: {network: true}, which the server does not"
                " allow: set sandbox_allow=network in config.properties, or take it out there",
                500,
            )

    def _prepare(self) -> None:
        """Give the model directory to the workers, before the first of them starts."""
        users = self._policy.users
        area = self._model_dir.unpacked.path.parent
        if users is None:
            if self.level == "standard":
                _keep_cache_open(area)
            return
        places = [area.parent, *([Path(self._interpreter).parent] if self._interpreter else [])]
        if self._model_dir.path.is_symlink():
            places.append(self._model_dir.path)
        for place in places:
            if closed := closed_to_others(place):
                log.warning(
                    "%s: its workers keep the server's user: %s is closed to others",
                    self._name,
                    closed,
                )
                return
        gid = users.take()
        area.chmod(0o711)  # the way to a directory whose name is known, and no list of names
        if self._model_dir.path.is_symlink():
            # Nobody may exchange the link: the next worker's rules are made by following it.
            os.chown(self._model_dir.unpacked.path, -1, gid)
            self._model_dir.unpacked.path.chmod(0o750)
        else:
            give_to_group(self._model_dir.unpacked.path, gid)
        self._gid, self._users = gid, users

    def _hidden(self) -> Sequence[Path]:
        hidden = list(self._policy.hidden)
        if self._users is None:
            hidden += [*self._policy.areas, self._model_dir.unpacked.path.parent]
        return hidden


class Cell:
    """What one process of a model has to itself."""

    def __init__(
        self,
        sandbox: Sandbox,
        scratch: UnpackDir | None = None,
        users: WorkerUsers | None = None,
    ) -> None:
        self._sandbox = sandbox
        self._scratch = scratch
        self._users = users

    def furnish(self, load: Load) -> Load:
        """The message for the process in this cell."""
        environment = dict(load.environment)
        if self._scratch is not None:
            environment["TMPDIR"] = str(self._scratch.path)
            # A user without an account has no name that torch could look up.
            environment.setdefault("USER", "torchkeep")
        if self._sandbox.uid or self._sandbox.level == "strict":
            environment["HOME"] = str(self._scratch.path if self._scratch else "/")
        if self._sandbox.level == "strict":
            # torch's pool of compile workers has no place for its semaphores, and waits for ever.
            environment["TORCHINDUCTOR_COMPILE_THREADS"] = "1"
        return replace(load, environment=environment, sandbox=self._sandbox)

    def close(self) -> None:
        """When the process has ended: remove what it wrote. Blocks; may be called twice."""
        if self._scratch is not None:
            self._scratch.remove()
        if self._users is not None and self._sandbox.uid:
            self._users.give_back(self._sandbox.uid)
            self._users = None


def _keep_cache_open(hidden: Path) -> None:
    """Make the directory that libraries download to, where it could not be made later.

    What is made beside the way to a hidden directory stays closed to workers.
    """
    home = Path(os.path.expanduser("~"))
    if home in hidden.parents:
        with suppress(OSError):
            (home / ".cache").mkdir(mode=0o700, exist_ok=True)


def give_to_group(directory: Path, gid: int) -> None:
    """Let a group do with all below a directory what its owner may; nobody else may anything."""
    for parent, directories, files in os.walk(directory):
        for name in (".", *directories, *files):
            path = os.path.join(parent, name)
            if not os.path.islink(path):
                os.chown(path, -1, gid)
                mode = os.stat(path).st_mode & 0o700
                os.chmod(path, mode | mode >> 3)
