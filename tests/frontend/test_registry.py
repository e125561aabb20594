"""Which model a name means, what its settings are, and whether all is well.

As TorchServe has it, and without workers.
"""

import asyncio
import io
import json
import zipfile
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from ground import worker_ground
from key_services import Agent

from torchkeep.frontend.dependencies import Dependencies, Installer
from torchkeep.frontend.errors import (
    ConflictStatus,
    DefaultVersionNotFound,
    InvalidModelVersion,
    ModelNotFound,
    ModelVersionNotFound,
)
from torchkeep.frontend.model_events import ModelEvents
from torchkeep.frontend.model_spec import ModelDefaults, ModelSpec, Registration
from torchkeep.frontend.registry import ModelRegistry
from torchkeep.modelstore.opening import ModelDir
from torchkeep.modelstore.store import ModelStore
from torchkeep.runtime.evidence import AgentEvidence
from torchkeep.runtime.fetch import parse_service
from torchkeep.runtime.snapshot import SavedModel

FULL = (
    "minWorkers: 2\nmaxWorkers: 3\nbatchSize: 6\nmaxBatchDelay: 60\n"
    "responseTimeout: 61\nstartupTimeout: 62\n"
)
IN_JSON = {
    "minWorkers": 4,
    "maxWorkers": 5,
    "batchSize": 7,
    "maxBatchDelay": 70,
    "responseTimeout": 71,
    "startupTimeout": 72,
}
NONE_IN_JSON = dict.fromkeys(IN_JSON, 0)


class FakeWorker:
    """One that is healthy as long as it is told to be."""

    def __init__(self, is_healthy: bool, is_ready: bool = True) -> None:
        self.is_healthy = is_healthy
        self.is_ready = is_ready


Make = Callable[..., ModelRegistry]


@pytest.fixture
def make(tmp_path: Path) -> Make:
    root = tmp_path / "store"
    root.mkdir()

    def make_registry(**defaults: Any) -> ModelRegistry:
        ground = worker_ground()  # no worker is started
        installer = Installer(ground.zygote, {}, is_allowed=False)
        store = ModelStore(root, [], tmp_path)
        return ModelRegistry(store, ground, ModelDefaults(**defaults), installer)

    return make_registry


@pytest.fixture
def pack(tmp_path: Path) -> Callable[..., str]:
    def pack_archive(
        file: str = "m.mar", name: str | None = "m", version: str = "1.0", config: str = ""
    ) -> str:
        model = {"modelName": name, "modelVersion": version, "handler": "h.py"}
        if config:
            model["configFile"] = "model-config.yaml"
        manifest = {"runtime": "python", "model": {k: v for k, v in model.items() if v is not None}}
        content = io.BytesIO()
        with zipfile.ZipFile(content, "w") as archive:
            archive.writestr("MAR-INF/MANIFEST.json", json.dumps(manifest))
            archive.writestr("h.py", "")
            archive.writestr("model-config.yaml", config)
        (tmp_path / "store" / file).write_bytes(content.getvalue())
        return file

    return pack_archive


def run(registry: ModelRegistry, scenario: Callable[[], Awaitable[None]]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(60):
            try:
                await scenario()
            finally:
                await registry.close()

    asyncio.run(bounded())


def spec_of(registry: ModelRegistry, asked: Registration) -> ModelSpec:
    found: list[ModelSpec] = []

    async def scenario() -> None:
        found.append((await registry.register(asked)).spec)

    run(registry, scenario)
    return found[0]


def test_load_is_recorded_before_packages_of_the_model_are_installed(
    tmp_path: Path, make: Make, pack: Callable[..., str]
) -> None:
    agent = Agent(lambda _: b"")
    recorded: list[int] = []

    class Watched(Installer):
        async def prepare(self, name: str, runtime: str, model_dir: ModelDir) -> Dependencies:
            recorded.append(len(agent.events))
            return await super().prepare(name, runtime, model_dir)

    with agent.listening():
        ground = make()._ground
        events = ModelEvents(AgentEvidence(parse_service(agent.address, {"http": 8006})))
        installer = Watched(ground.zygote, {}, is_allowed=False)
        store = ModelStore(tmp_path / "store", [], tmp_path)
        registry = ModelRegistry(store, ground, ModelDefaults(), installer, events)
        spec_of(registry, Registration(pack()))
    assert recorded == [1]


@pytest.mark.parametrize(
    ("asked", "config", "in_json", "expected"),
    [
        # batch size and delay: API, model-config, `models` JSON, default
        ({"batch_size": 9, "max_batch_delay": 90}, FULL, IN_JSON, (9, 90)),
        ({"batch_size": 0, "max_batch_delay": 0}, FULL, IN_JSON, (0, 0)),
        ({"batch_size": -7, "max_batch_delay": -7}, FULL, IN_JSON, (-7, -7)),
        ({"batch_size": -1, "max_batch_delay": -100}, FULL, IN_JSON, (6, 60)),
        ({}, FULL, IN_JSON, (6, 60)),
        ({}, "batchSize: 0\nmaxBatchDelay: -1\n", IN_JSON, (1, 70)),  # 0 is taken for 1
        ({}, "", IN_JSON, (7, 70)),
        ({}, "", NONE_IN_JSON, (1, 100)),
        ({}, "", {"maxBatchDelay": -1}, (1, 100)),
        ({}, "", {}, (1, 100)),
    ],
)
def test_batches_are_those_of_api_then_yaml_then_models_json(
    make: Make,
    pack: Callable[..., str],
    asked: dict[str, int],
    config: str,
    in_json: dict[str, int],
    expected: tuple[int, int],
) -> None:
    registry = make(models={"m": {"1.0": in_json}})
    spec = spec_of(registry, Registration(pack(config=config), **asked))  # type: ignore[arg-type]
    assert (spec.batch_size, spec.max_batch_delay_ms) == expected


@pytest.mark.parametrize(
    ("asked", "config", "in_json", "expected"),
    [
        ({"response_timeout": 9, "startup_timeout": 8}, FULL, IN_JSON, (61, 62)),
        ({"response_timeout": 9, "startup_timeout": 8}, "batchSize: 2\n", IN_JSON, (120, 120)),
        ({"response_timeout": 9, "startup_timeout": 8}, "", IN_JSON, (71, 72)),
        ({"response_timeout": 9, "startup_timeout": 8}, "", NONE_IN_JSON, (9, 8)),
        ({"response_timeout": 0, "startup_timeout": -2}, "", {}, (0, -2)),
        ({"response_timeout": -1, "startup_timeout": -1}, "", {}, (33, 44)),
        ({}, "", {}, (33, 44)),
    ],
)
def test_with_a_config_file_the_timeouts_of_api_and_configuration_are_ignored(
    make: Make,
    pack: Callable[..., str],
    asked: dict[str, int],
    config: str,
    in_json: dict[str, int],
    expected: tuple[int, int],
) -> None:
    registry = make(models={"m": {"1.0": in_json}}, response_timeout_s=33, startup_timeout_s=44)
    spec = spec_of(registry, Registration(pack(config=config), **asked))  # type: ignore[arg-type]
    assert (spec.response_timeout_s, spec.startup_timeout_s) == expected


def test_debug_lifts_every_time_limit_of_a_model(make: Make, pack: Callable[..., str]) -> None:
    asked = Registration(pack(config="responseTimeout: 5\n"), startup_timeout=8)
    assert spec_of(make(), asked).response_timeout_s == 5
    free = spec_of(make(has_time_limits=False), asked)
    assert (free.response_timeout_s, free.startup_timeout_s) == (2147483647, 2147483647)


@pytest.mark.parametrize(
    ("config", "size"), [("jobQueueSize: 7\n", 7), ("batchSize: 2\n", 55), ("", 55)]
)
def test_the_queue_of_an_archive_overrides_that_of_the_configuration(
    make: Make, pack: Callable[..., str], config: str, size: int
) -> None:
    spec = spec_of(make(job_queue_size=55), Registration(pack(config=config)))
    assert spec.job_queue_size == size


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ("sequenceBatching: true\nsequenceMaxIdleMSec: 9\n", (1, 1)),
        ("sequenceMaxIdleMSec: 9\nmaxNumSequence: 5\nmaxSequenceJobQueueSize: 6\n", (5, 6)),
        ("maxNumSequence: 5\nmaxSequenceJobQueueSize: 6\n", (0, 0)),
    ],
)
def test_sequences_are_described_where_they_can_end(
    make: Make, pack: Callable[..., str], config: str, expected: tuple[int, int]
) -> None:
    spec = spec_of(make(), Registration(pack(config=config)))
    assert (spec.max_num_sequence, spec.max_sequence_job_queue_size) == expected


@pytest.mark.parametrize(
    ("initial", "config", "expected"),
    [
        (1, FULL, (2, 3)),
        (None, FULL, (2, 3)),
        (1, "minWorkers: 2\nmaxWorkers: 1\n", (1, 1)),
        (1, "maxWorkers: 3\n", (1, 1)),
        (5, "", (5, 5)),
        (0, "", (0, 0)),
        (-5, "", (0, 0)),
        (None, "", (11, 11)),
        (None, "minWorkers: 2\n", (11, 11)),
    ],
)
def test_workers_at_register_are_those_of_yaml_then_initial_workers(
    make: Make,
    pack: Callable[..., str],
    initial: int | None,
    config: str,
    expected: tuple[int, int],
) -> None:
    registry = make(models={"m": {"1.0": IN_JSON}}, workers_at_register=11, workers_at_startup=12)
    spec = spec_of(registry, Registration(pack(config=config), initial_workers=initial))
    assert (spec.min_workers, spec.max_workers) == expected


@pytest.mark.parametrize(
    ("config", "in_json", "expected"),
    [
        (FULL, IN_JSON, (2, 3)),
        ("", IN_JSON, (4, 5)),
        ("", {"minWorkers": 15}, (15, 12)),
        ("", {"maxWorkers": 3}, (12, 3)),
        ("", NONE_IN_JSON, (12, 12)),
        ("", {}, (12, 12)),
    ],
)
def test_workers_at_startup_are_those_of_yaml_then_models_json_then_the_default(
    make: Make,
    pack: Callable[..., str],
    config: str,
    in_json: dict[str, int],
    expected: tuple[int, int],
) -> None:
    registry = make(models={"m": {"1.0": in_json}}, workers_at_register=11)
    asked = Registration(pack(config=config), initial_workers=12, loaded_at_startup=True)
    spec = spec_of(registry, asked)
    assert (spec.min_workers, spec.max_workers) == expected


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        (Registration("m.mar"), ("m", "h.py", "python")),
        (Registration("m.mar", model_name="other"), ("other", "h.py", "python")),
        (Registration("m.mar", handler="g:f", runtime="python3"), ("m", "g:f", "python3")),
    ],
)
def test_what_the_api_gives_overrides_the_manifest(
    make: Make, pack: Callable[..., str], asked: Registration, expected: tuple[str, str, str]
) -> None:
    pack()
    spec = spec_of(make(handler="default:h"), asked)
    assert (spec.name, spec.handler, spec.runtime) == expected
    assert spec.url == "m.mar"


@pytest.mark.parametrize(
    ("in_json", "interpreter"),
    [("python3", "python3"), ("ruby", "python"), (None, "python"), ([], "python")],
)
def test_the_runtime_of_models_json_counts_and_is_not_described(
    make: Make, pack: Callable[..., str], in_json: Any, interpreter: str
) -> None:
    registry = make(models={"m": {"1.0": {"runtimeType": in_json}}})
    spec = spec_of(registry, Registration(pack(), runtime="python"))
    assert (spec.runtime, spec.worker_runtime) == ("python", interpreter)


def test_a_restored_model_has_its_settings_and_was_not_loaded_at_startup(
    make: Make, pack: Callable[..., str]
) -> None:
    registry = make()
    urls = [pack(f"{version}.mar", "m", version) for version in ("1.0", "2.0")]

    def saved(url: str, is_default: bool) -> SavedModel:
        return SavedModel("m", url[:3], url, is_default, 0, 0, 4, 50, 61, 62, "python3")

    async def scenario() -> None:
        first = await registry.restore(saved(urls[0], False))
        second = await registry.restore(saved(urls[1], True))
        assert first is not None
        assert registry.get("m") is second
        spec = first.spec
        assert (spec.batch_size, spec.max_batch_delay_ms) == (4, 50)
        assert (spec.response_timeout_s, spec.startup_timeout_s) == (61, 62)
        assert (spec.runtime, spec.loaded_at_startup) == ("python3", False)
        assert registry.only_startup_name is None

    run(registry, scenario)


def test_the_first_version_is_the_default_until_another_is_set(
    make: Make, pack: Callable[..., str]
) -> None:
    registry = make()
    urls = [pack(f"{version}.mar", "m", version) for version in ("2.0", "1.0", "10-beta")]

    async def scenario() -> None:
        for url in urls:
            await registry.register(Registration(url))
        assert registry.get("m").spec.version == "2.0"
        with pytest.raises(ConflictStatus, match="already registered for model m"):
            await registry.register(Registration(urls[1]))
        registry.set_default("m", "10-beta")
        assert registry.get("m").spec.version == "10-beta"
        assert registry.urls() == [("m", "10-beta.mar")]  # that of the default version
        with pytest.raises(DefaultVersionNotFound):
            registry.set_default("m", "9")
        with pytest.raises(ModelNotFound):
            registry.set_default("none", "1.0")
        with pytest.raises(ModelVersionNotFound):
            registry.get("m", "9")

    run(registry, scenario)


def test_each_version_has_a_queue_and_workers_of_its_own(
    make: Make, pack: Callable[..., str]
) -> None:
    registry = make()
    urls = [pack(f"{version}.mar", "m", version) for version in ("1.0", "2.0")]

    async def scenario() -> None:
        one, two = [await registry.register(Registration(url)) for url in urls]
        assert registry.versions("m") == [one, two]
        assert one.queue is not two.queue
        assert one.workers is not two.workers

    run(registry, scenario)


def test_what_becomes_of_a_model_is_told_in_torchserves_words(
    make: Make, pack: Callable[..., str], caplog: pytest.LogCaptureFixture
) -> None:
    registry = make()

    async def scenario() -> None:
        await registry.register(Registration(pack()))
        await registry.unregister("m")

    with caplog.at_level("INFO", "torchkeep.frontend.registry"):
        run(registry, scenario)
    assert caplog.messages == ["Model m loaded.", "Model m unregistered."]


def test_the_default_version_goes_last(make: Make, pack: Callable[..., str]) -> None:
    registry = make()
    urls = [pack(f"{version}.mar", "m", version) for version in ("1.0", "2.0")]

    async def scenario() -> None:
        for url in urls:
            await registry.register(Registration(url))
        for version in (None, "1.0"):
            with pytest.raises(InvalidModelVersion, match="Cannot remove default version"):
                await registry.unregister("m", version)
        await registry.unregister("m", "2.0")
        await registry.unregister("m")
        with pytest.raises(ModelNotFound):
            registry.get("m")
        # and the next first one is the default again
        await registry.register(Registration(urls[1]))
        assert registry.get("m").spec.version == "2.0"

    run(registry, scenario)


def test_a_name_that_was_loaded_at_startup_is_so_for_all_its_versions_until_it_goes(
    make: Make, pack: Callable[..., str]
) -> None:
    registry = make()
    urls = [pack(f"{version}.mar", "m", version) for version in ("1.0", "2.0")]

    async def scenario() -> None:
        await registry.register(Registration(urls[0], initial_workers=0, loaded_at_startup=True))
        later = await registry.register(Registration(urls[1]))
        other = await registry.register(Registration(urls[1], model_name="other"))
        assert later.spec.loaded_at_startup
        assert not other.spec.loaded_at_startup
        assert registry.only_startup_name == "m"
        await registry.unregister("m", "2.0")
        await registry.unregister("m")
        assert registry.only_startup_name is None
        again = await registry.register(Registration(urls[0]))
        assert not again.spec.loaded_at_startup

    run(registry, scenario)


def test_ping_looks_at_the_workers_of_default_versions_alone(
    make: Make, pack: Callable[..., str]
) -> None:
    registry = make()
    urls = [pack(f"{version}.mar", "m", version) for version in ("1.0", "2.0")]

    async def scenario() -> None:
        assert registry.is_healthy()  # nothing is registered
        first = await registry.register(Registration(urls[0], initial_workers=2))
        second = await registry.register(Registration(urls[1], initial_workers=1))
        first.workers = [FakeWorker(True), FakeWorker(True)]  # type: ignore[list-item]
        assert registry.is_healthy()  # the other version has no worker at all
        first.workers[1].is_healthy = False  # type: ignore[misc]
        assert not registry.is_healthy()
        registry.set_default("m", "2.0")
        second.workers = [FakeWorker(True)]  # type: ignore[list-item]
        assert registry.is_healthy()
        first.workers = second.workers = []

    run(registry, scenario)


def test_a_server_is_ready_once_each_default_version_was_loaded(
    make: Make, pack: Callable[..., str]
) -> None:
    registry = make()
    urls = [pack(f"{version}.mar", "m", version) for version in ("1.0", "2.0")]

    async def scenario() -> None:
        assert registry.is_ready()  # nothing is registered
        first = await registry.register(Registration(urls[0], initial_workers=2))
        await registry.register(Registration(urls[1], initial_workers=1))
        first.workers = [FakeWorker(True, False), FakeWorker(True, False)]  # type: ignore[list-item]
        assert not registry.is_ready()  # although they are healthy, as for ping
        first.workers[1].is_ready = True  # type: ignore[misc]
        assert registry.is_ready()  # the other version has no worker at all
        first.workers = []

    run(registry, scenario)


def test_ping_of_a_model_that_wants_no_workers(make: Make, pack: Callable[..., str]) -> None:
    registry = make()

    async def scenario() -> None:
        await registry.register(Registration(pack()))
        assert registry.is_healthy()
        assert registry.is_ready()

    run(registry, scenario)
