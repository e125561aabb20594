"""Which of several places a setting of a model is taken from, and which version is asked for."""

import asyncio
import itertools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import pytest

from torchkeep.frontend.dependencies import Installer
from torchkeep.frontend.errors import InvalidModelVersion, ModelNotFound, ModelVersionNotFound
from torchkeep.frontend.metrics import Metrics
from torchkeep.frontend.registry import ModelDefaults, ModelRegistry, Registration
from torchkeep.frontend.served_model import ModelSpec, WorkerGround
from torchkeep.frontend.thread_plan import ThreadPlan
from torchkeep.modelstore.store import ModelStore
from torchkeep.runtime.cores import usable_cores

DEFAULTS = {"response_timeout_s": 33, "startup_timeout_s": 44, "job_queue_size": 55}
OF_MODELS = {"minWorkers": 3, "maxWorkers": 4, "batchSize": 5, "maxBatchDelay": 6}
TIMES = {"responseTimeout": 7, "startupTimeout": 8}
OTHER_YAML = "handler: {a: 1}\n"


class Store:
    """Archives of one model, and registries that serve them without workers."""

    def __init__(self, root: Path) -> None:
        self._root = root
        (root / "store").mkdir()

    def pack(self, yaml: str | None = None, version: str = "1.0") -> str:
        model = {"modelName": "m", "modelVersion": version, "handler": "h.py"}
        if yaml is not None:
            model["configFile"] = "c.yaml"
        with ZipFile(self._root / "store" / f"m{version}.mar", "w") as archive:
            archive.writestr("h.py", "")
            archive.writestr("MAR-INF/MANIFEST.json", json.dumps({"model": model}))
            if yaml is not None:
                archive.writestr("c.yaml", yaml)
        return f"m{version}.mar"

    def registry(self, models: dict[str, Any] | None = None, **defaults: Any) -> ModelRegistry:
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
        store = ModelStore(self._root / "store", [], self._root / "unpacked")
        settings = ModelDefaults(models=models or {}, **{**DEFAULTS, **defaults})
        return ModelRegistry(store, ground, settings, Installer(ground.zygote, {}, False))

    def spec(
        self, yaml: str | None, of_models: dict[str, Any], asked: dict[str, Any], **defaults: Any
    ) -> ModelSpec:
        registry = self.registry({"m": {"1.0": of_models}}, **defaults)

        async def register() -> ModelSpec:
            served = await registry.register(Registration(self.pack(yaml), **asked))
            await registry.close()
            return served.spec

        return asyncio.run(register())


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path)


@pytest.mark.parametrize(
    ("yaml", "of_models", "asked", "expected"),
    [
        ("batchSize: 2\nmaxBatchDelay: 3\n", OF_MODELS, {}, (2, 3)),
        ("batchSize: 2\nmaxBatchDelay: 3\n", {}, {"batch_size": 9, "max_batch_delay": 10}, (9, 10)),
        (None, OF_MODELS, {}, (5, 6)),
        (None, OF_MODELS, {"batch_size": -1, "max_batch_delay": -100}, (5, 6)),
        (None, {"batchSize": 0, "maxBatchDelay": -1}, {}, (1, 100)),
        (None, {}, {"max_batch_delay": 0}, (1, 0)),
        (None, {}, {"max_batch_delay": -10000}, (1, -10000)),
    ],
)
def test_batches_are_those_of_the_api_then_of_the_archive_then_of_the_configuration(
    store: Store, yaml: Any, of_models: Any, asked: Any, expected: tuple[int, int]
) -> None:
    spec = store.spec(yaml, of_models, asked)
    assert (spec.batch_size, spec.max_batch_delay_ms) == expected


@pytest.mark.parametrize(
    ("yaml", "of_models", "asked", "expected"),
    [
        ("responseTimeout: 2\nstartupTimeout: 3\n", TIMES, {"response_timeout": 9}, (2, 3)),
        (OTHER_YAML, TIMES, {"response_timeout": 9, "startup_timeout": 9}, (120, 120)),
        (None, TIMES, {"response_timeout": 9, "startup_timeout": 9}, (7, 8)),
        (None, {}, {"response_timeout": 9, "startup_timeout": 0}, (9, 0)),
        (None, {}, {"response_timeout": -1}, (33, 44)),
        (None, {"responseTimeout": 0}, {}, (33, 44)),
    ],
)
def test_timeouts_of_an_archive_with_a_config_file_are_its_own_and_those_of_others_not(
    store: Store, yaml: Any, of_models: Any, asked: Any, expected: tuple[int, int]
) -> None:
    spec = store.spec(yaml, of_models, asked)
    assert (spec.response_timeout_s, spec.startup_timeout_s) == expected


@pytest.mark.parametrize(
    ("yaml", "asked", "expected"),
    [
        ("minWorkers: 1\nmaxWorkers: 2\n", {"initial_workers": 9}, (1, 2)),
        ("minWorkers: 2\nmaxWorkers: 1\n", {"initial_workers": 9}, (9, 9)),
        ("minWorkers: 2\n", {}, (6, 6)),
        (None, {"initial_workers": 9}, (9, 9)),
        (None, {"initial_workers": 0}, (0, 0)),
        (None, {}, (6, 6)),
        (None, {"initial_workers": 9, "loaded_at_startup": True}, (3, 4)),
        ("minWorkers: 1\nmaxWorkers: 2\n", {"loaded_at_startup": True}, (1, 2)),
    ],
)
def test_workers_are_those_of_the_archive_then_of_who_asks_and_at_startup_of_the_configuration(
    store: Store, yaml: Any, asked: Any, expected: tuple[int, int]
) -> None:
    spec = store.spec(yaml, OF_MODELS, asked, workers_at_register=6)
    assert (spec.min_workers, spec.max_workers) == expected


@pytest.mark.parametrize(("yaml", "size"), [("jobQueueSize: 7\n", 7), (OTHER_YAML, 55), (None, 55)])
def test_the_queue_of_an_archive_overrides_that_of_the_configuration(
    store: Store, yaml: str | None, size: int
) -> None:
    assert store.spec(yaml, {}, {}).job_queue_size == size


@pytest.mark.parametrize(
    ("yaml", "expected"),
    [
        ("sequenceBatching: true\nsequenceMaxIdleMSec: 9\n", (1, 1)),
        ("sequenceMaxIdleMSec: 9\nmaxNumSequence: 5\nmaxSequenceJobQueueSize: 6\n", (5, 6)),
        ("maxNumSequence: 5\nmaxSequenceJobQueueSize: 6\n", (0, 0)),
    ],
)
def test_sequences_are_described_where_they_can_end(
    store: Store, yaml: str, expected: tuple[int, int]
) -> None:
    spec = store.spec(yaml, {}, {})
    assert (spec.max_num_sequence, spec.max_sequence_job_queue_size) == expected


def in_registry(store: Store, scenario: Callable[[ModelRegistry], Any]) -> None:
    async def run() -> None:
        registry = store.registry()
        for version in ("1.0", "2.0"):
            await registry.register(Registration(store.pack(version=version)))
        await scenario(registry)
        await registry.close()

    asyncio.run(run())


def test_the_first_version_is_the_default_until_another_is_set(store: Store) -> None:
    async def scenario(registry: ModelRegistry) -> None:
        assert registry.get("m").spec.version == "1.0"
        assert registry.get("m", "2.0").spec.version == "2.0"
        registry.set_default("m", "2.0")
        assert registry.get("m").spec.version == "2.0"
        with pytest.raises(ModelVersionNotFound):
            registry.get("m", "3.0")

    in_registry(store, scenario)


def test_each_version_has_a_queue_and_workers_of_its_own(store: Store) -> None:
    async def scenario(registry: ModelRegistry) -> None:
        one, two = registry.versions("m")
        assert one.queue is not two.queue
        assert one.workers is not two.workers

    in_registry(store, scenario)


def test_a_default_version_stays_while_there_are_others(store: Store) -> None:
    async def scenario(registry: ModelRegistry) -> None:
        with pytest.raises(InvalidModelVersion):
            await registry.unregister("m", "1.0")
        await registry.unregister("m", "2.0")
        await registry.unregister("m")
        with pytest.raises(ModelNotFound):
            registry.get("m")

    in_registry(store, scenario)


def test_what_becomes_of_a_model_is_told_in_torchserves_words(
    store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario(registry: ModelRegistry) -> None:
        await registry.unregister("m", "2.0")

    with caplog.at_level("INFO", "torchkeep.frontend.registry"):
        in_registry(store, scenario)
    assert caplog.messages == ["Model m loaded.", "Model m loaded.", "Model m unregistered."]
