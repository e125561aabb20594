"""What the server's own settings make of a model, without any worker."""

import asyncio
import itertools
from pathlib import Path
from typing import Any
from zipfile import ZipFile

from torchkeep.frontend.dependencies import Installer
from torchkeep.frontend.metrics import Metrics
from torchkeep.frontend.registry import ModelDefaults, ModelRegistry, Registration
from torchkeep.frontend.served_model import ModelSpec, WorkerGround
from torchkeep.frontend.thread_plan import ThreadPlan
from torchkeep.modelstore.store import ModelStore
from torchkeep.runtime.cores import usable_cores

MANIFEST = '{"model": {"modelName": "m", "handler": "h.py", "configFile": "model-config.yaml"}}'


def registered(directory: Path, defaults: ModelDefaults, **asked: Any) -> ModelSpec:
    """The model of an archive whose own configuration limits a response to 5 s."""
    with ZipFile(directory / "m.mar", "w") as archive:
        archive.writestr("MAR-INF/MANIFEST.json", MANIFEST)
        archive.writestr("model-config.yaml", "responseTimeout: 5\n")
    ground = WorkerGround(
        None,  # type: ignore[arg-type] - no worker is started
        Metrics(),
        itertools.count(9000),
        dict,
        True,
        True,
        1000,
        ThreadPlan(usable_cores()),
    )
    installer = Installer(ground.zygote, {}, is_allowed=False)
    registry = ModelRegistry(ModelStore(directory, [], directory), ground, defaults, installer)

    async def main() -> ModelSpec:
        served = await registry.register(Registration("m.mar", **asked))
        await registry.unregister("m")
        return served.spec

    return asyncio.run(main())


def test_debug_lifts_every_time_limit_of_a_model(tmp_path: Path) -> None:
    asked = {"startup_timeout": 8}
    limited = registered(tmp_path, ModelDefaults(), **asked)
    assert limited.response_timeout_s == 5
    free = registered(tmp_path, ModelDefaults(has_time_limits=False), **asked)
    assert (free.response_timeout_s, free.startup_timeout_s) == (2147483647, 2147483647)


def test_runtime_type_of_the_models_json_wins_and_is_not_described(tmp_path: Path) -> None:
    for preferred, interpreter in (("python3", "python3"), ("java", "LSP"), (7, "LSP")):
        defaults = ModelDefaults(models={"m": {"1.0": {"runtimeType": preferred}}})
        spec = registered(tmp_path, defaults, runtime="LSP")
        assert (spec.runtime, spec.worker_runtime) == ("LSP", interpreter)
