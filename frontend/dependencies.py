"""What a model's workers need beside the server's own packages, put beside the model.

The configuration decides whether archives may install what their `requirements.txt` lists. A
model that asks for `useVenv` gets a virtual environment in any case, which sees the server's
packages and may have others in their place. Either way its workers are no forks: what the
process they would be forked from has imported would win over what was installed.
"""

import asyncio
import logging
import shlex
import site
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path

from torchkeep.frontend.errors import InstallFailed, NoVirtualEnvironment
from torchkeep.frontend.worker_output import OutputPipes
from torchkeep.frontend.zygote_client import ZygoteClient
from torchkeep.modelstore.opening import ModelDir

log = logging.getLogger("torchkeep.frontend")

SERVER_PACKAGES = "torchkeep-server.pth"


@dataclass(frozen=True, slots=True)
class Dependencies:
    """How a worker finds them; by default it is a worker like any other."""

    interpreter: str | None = None
    # Where the server's own libraries are, if the interpreter might find others before them.
    libraries: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class Installer:
    """Runs pip, and makes virtual environments."""

    zygote: ZygoteClient
    environment: Mapping[str, str]  # of pip, which reads its settings there
    is_allowed: bool  # to install what an archive lists
    interpreters: Mapping[str, str] = field(default_factory=dict)  # by runtime
    python: str = sys.executable

    async def prepare(self, name: str, runtime: str, model_dir: ModelDir) -> Dependencies:
        """Put everything in place; raises NoVirtualEnvironment, InstallFailed."""
        interpreter, options = self.interpreters.get(runtime, self.python), ["-U"]
        # The files of a model that came as a directory stay as they are.
        home = model_dir.unpacked.path
        has_venv = model_dir.config.use_venv and runtime != "LSP"
        if has_venv:
            interpreter = await self._create_venv(name, home / "venv")
            options += ["--upgrade-strategy", "only-if-needed"]
        else:
            options += ["-t", str(home)]
        if not self.is_allowed or model_dir.manifest.requirements_file is None:
            return _in_environment(interpreter) if has_venv else Dependencies()
        requirements = model_dir.path / model_dir.manifest.requirements_file
        pip = ["-m", "pip", "install", "--no-input", "--disable-pip-version-check"]
        command = [interpreter, *pip, *options, "-r", str(requirements)]
        if await self._run(f"P-{name}", command, model_dir.path) != 0:
            log.error(
                "%s: pip could not install %s, see above; by hand: %s",
                name,
                model_dir.manifest.requirements_file,
                shlex.join(command),
            )
            raise InstallFailed(name)
        return _in_environment(interpreter) if has_venv else Dependencies(interpreter)

    async def _create_venv(self, name: str, venv: Path) -> str:
        # Without a pip of its own it uses the server's, which saves seconds.
        without_pip = ["--without-pip"] if find_spec("pip") is not None else []
        command = [self.python, "-m", "venv", *without_pip, str(venv)]
        if await self._run(f"V-{name}", command, venv.parent) != 0:
            log.error(
                "%s: no virtual environment, see above; by hand: %s", name, shlex.join(command)
            )
            raise NoVirtualEnvironment(name)
        version = f"python{sys.version_info.major}.{sys.version_info.minor}"
        lines = [f"import site; site.addsitedir({path!r})\n" for path in site.getsitepackages()]
        (venv / "lib" / version / "site-packages" / SERVER_PACKAGES).write_text("".join(lines))
        return str(venv / "bin" / "python")

    async def _run(self, name: str, command: Sequence[str], cwd: Path) -> int:
        """The exit status; what it prints goes to the model log."""
        # An archive may hold the wheels that it lists, but not a `pip.py` in the place of pip.
        environment = {**self.environment, "PYTHONSAFEPATH": "1"}
        pipes = OutputPipes(name)
        with pipes as (stdout, stderr):
            child = self.zygote.start(command, environment, stdout, stderr, cwd)
        try:
            return await asyncio.shield(child.exited)
        finally:
            child.kill()  # before the directory goes that it writes to
            await child.exited
            for output in pipes.outputs:
                output.close()


def _in_environment(interpreter: str) -> Dependencies:
    return Dependencies(interpreter, site.getsitepackages())
