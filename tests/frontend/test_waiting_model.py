"""A sealed model of the configuration whose key cannot be had when the server starts."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from ground import worker_ground
from sealing import KEY_ID, Keys, mar_bytes, write_sealed

from torchkeep.frontend import registry as registry_module
from torchkeep.frontend import waiting_model
from torchkeep.frontend.app import ApiSettings, inference_app, management_app
from torchkeep.frontend.dependencies import Installer
from torchkeep.frontend.metrics import Metrics
from torchkeep.frontend.model_spec import ModelDefaults
from torchkeep.frontend.registry import ModelRegistry
from torchkeep.frontend.snapshots import Snapshots
from torchkeep.modelstore.errors import KeyStep, KeyUnavailable
from torchkeep.modelstore.memory_place import MemoryPlace
from torchkeep.modelstore.store import ModelStore
from torchkeep.runtime.properties import parse_properties
from torchkeep.runtime.snapshot import FileSnapshots, SavedModel, parse_models

Ask = Callable[..., Awaitable[Any]]


class LateKeys:
    """Cannot be reached until told to; then the key is the right one."""

    def __init__(self) -> None:
        self.asked = 0
        self.is_reachable = False
        self.is_silent = False
        self.is_temporary = True
        self.step: KeyStep = "unreachable"

    async def key_for(self, key_id: str) -> bytearray:
        self.asked += 1
        if self.is_silent:
            await asyncio.Event().wait()
        if self.is_reachable:
            return await Keys().key_for(key_id)
        raise KeyUnavailable(key_id, self.step, "Do it.", is_temporary=self.is_temporary)


@pytest.fixture
def keys() -> LateKeys:
    return LateKeys()


@pytest.fixture
def registry(tmp_path: Path, memory: Path, keys: LateKeys) -> ModelRegistry:
    root = tmp_path / "store"
    root.mkdir()
    write_sealed(root / "m.mar", mar_bytes())
    store = ModelStore(
        root, [], tmp_path, key_source=keys, memory_place=MemoryPlace(memory, tmp_path)
    )
    ground = worker_ground()  # no worker is started
    installer = Installer(ground.zygote, {}, is_allowed=False)
    return ModelRegistry(store, ground, ModelDefaults(workers_at_startup=0), installer)


@pytest.fixture
def run(
    registry: ModelRegistry, monkeypatch: pytest.MonkeyPatch
) -> Callable[[Callable[[], Awaitable[None]]], None]:
    monkeypatch.setattr(registry_module, "KEY_PATIENCE_S", 0.05)
    monkeypatch.setattr(waiting_model, "BACKOFF_S", (0.01,))

    def run_scenario(scenario: Callable[[], Awaitable[None]]) -> None:
        async def bounded() -> None:
            async with asyncio.timeout(20):
                assert await registry.load_at_startup(None, "m.mar") is None
                await scenario()
                await registry.close()
            assert len(asyncio.all_tasks()) == 1

        asyncio.run(bounded())

    return run_scenario


async def status_of(ask_async: Ask, app: Any, method: str, path: str) -> tuple[int, Any]:
    answer = await ask_async(app, method, path)
    return answer.status, answer.json


def test_it_is_known_but_not_served(
    registry: ModelRegistry, run: Any, keys: LateKeys, ask_async: Ask, caplog: Any
) -> None:
    inference = inference_app(registry, Metrics(), ApiSettings())
    management = management_app(registry, Metrics(), ApiSettings(is_model_api_enabled=True))

    async def scenario() -> None:
        while keys.asked < 3:  # noqa: ASYNC110 - a plain number
            await asyncio.sleep(0.005)
        for path in ("/models/m", "/models/m/1.0", "/models/m/all"):
            status, (described,) = await status_of(ask_async, management, "GET", path)
            assert status == 200
            assert described["modelName"] == "m"
            assert described["modelVersion"] == "1.0"
            assert described["workers"] == []
            assert described["notReady"] == f"No key {KEY_ID}: unreachable. Do it."
        assert (await ask_async(management, "GET", "/models/m/2.0")).status == 404
        _, page = await status_of(ask_async, management, "GET", "/models")
        assert page["models"] == [{"modelName": "m", "modelUrl": "m.mar"}]
        ready = await status_of(ask_async, management, "GET", "/v1/models/m")
        assert ready == (200, {"name": "m", "ready": False})
        assert (await ask_async(management, "OPTIONS", "/models/m")).status == 200
        assert (await ask_async(inference, "GET", "/ping")).status == 500
        for app, method, path in (
            (inference, "POST", "/predictions/m"),
            (inference, "POST", "/predictions/m/1.0"),
            (inference, "POST", "/v2/models/m/infer"),
            (management, "PUT", "/models/m?min_worker=1"),
        ):
            status, error = await status_of(ask_async, app, method, path)
            assert status == 503
            assert error["message"] == 'Model "m" is not ready: it waits for its key.'

    run(scenario)
    lines = [message for message in caplog.messages if "waits for its key" in message]
    assert lines == [f"model m waits for its key: No key {KEY_ID}: unreachable. Do it."]


def test_it_is_served_when_its_key_comes(
    registry: ModelRegistry, run: Any, keys: LateKeys, ask_async: Ask
) -> None:
    async def scenario() -> None:
        keys.is_reachable = True
        while registry.is_waiting("m"):  # noqa: ASYNC110 - a plain dictionary
            await asyncio.sleep(0.005)
        assert registry.get("m").model_dir.sealed
        assert registry.is_healthy()
        answer = await ask_async(
            management_app(registry, Metrics(), ApiSettings()), "GET", "/models/m/all"
        )
        (described,) = answer.json
        assert "notReady" not in described

    run(scenario)


def test_it_can_be_unregistered_while_it_waits(
    registry: ModelRegistry, run: Any, keys: LateKeys, ask_async: Ask
) -> None:
    keys.is_silent = True  # the key has been asked for, and no answer comes
    management = management_app(registry, Metrics(), ApiSettings(is_model_api_enabled=True))

    async def scenario() -> None:
        assert keys.asked == 1
        assert (await ask_async(management, "DELETE", "/models/m")).status == 200
        assert (await ask_async(management, "GET", "/models/m")).status == 404
        assert registry.is_healthy()

    run(scenario)


@pytest.mark.parametrize("step", ["policy denied", "attestation refused", "resource missing"])
def test_who_refuses_a_key_may_change_his_mind(
    registry: ModelRegistry, run: Any, keys: LateKeys, step: KeyStep, caplog: Any
) -> None:
    keys.step, keys.is_temporary = step, False

    async def scenario() -> None:
        assert registry.waiting("m")[0].reason == f"No key {KEY_ID}: {step}. Do it."
        keys.is_reachable = True
        while registry.is_waiting("m"):  # noqa: ASYNC110 - a plain dictionary
            await asyncio.sleep(0.005)
        assert registry.get("m").model_dir.sealed

    run(scenario)
    assert "model m waits no longer: its key has come" in caplog.text


def test_a_model_that_comes_another_way_is_waited_for_no_longer(
    registry: ModelRegistry, run: Any, keys: LateKeys, ask_async: Ask
) -> None:
    keys.is_silent = True
    management = management_app(registry, Metrics(), ApiSettings(is_model_api_enabled=True))

    async def scenario() -> None:
        keys.is_silent, keys.is_reachable = False, True
        assert (await ask_async(management, "POST", "/models?url=m.mar")).status == 200
        assert registry.waiting("m") == []
        assert registry.is_healthy()

    run(scenario)


def test_the_server_may_end_while_it_waits(run: Any, keys: LateKeys) -> None:
    keys.is_silent = True

    async def scenario() -> None:
        pass

    run(scenario)


def test_what_will_not_change_is_not_waited_for(
    registry: ModelRegistry, run: Any, keys: LateKeys, caplog: Any
) -> None:
    keys.step = "not configured"

    async def scenario() -> None:
        assert not registry.is_waiting("m")
        assert registry.is_healthy()

    run(scenario)
    assert keys.asked == 1
    assert "Failed to load model: m.mar: No key" in caplog.text


@pytest.mark.parametrize(
    ("step", "status", "kind"),
    [
        ("unreachable", 503, "ServiceUnavailableException"),
        ("policy denied", 400, "InvalidModelException"),
    ],
)
def test_a_register_call_does_not_wait(
    registry: ModelRegistry,
    run: Any,
    keys: LateKeys,
    ask_async: Ask,
    step: KeyStep,
    status: int,
    kind: str,
) -> None:
    keys.step = "not configured"  # so that none waits from the start
    management = management_app(registry, Metrics(), ApiSettings(is_model_api_enabled=True))

    async def scenario() -> None:
        keys.step, keys.is_temporary = step, step == "unreachable"
        answer = await ask_async(management, "POST", "/models?url=m.mar")
        assert (answer.status, answer.json["type"]) == (status, kind)
        assert answer.json["message"] == f"No key {KEY_ID}: {step}. Do it."
        assert (await ask_async(management, "GET", "/models/m")).status == 404

    run(scenario)


@pytest.mark.parametrize("batch_size", [None, 8])
def test_a_snapshot_keeps_what_waits_with_its_settings(
    registry: ModelRegistry,
    keys: LateKeys,
    tmp_path: Path,
    batch_size: int | None,
    monkeypatch: Any,
) -> None:
    monkeypatch.setattr(registry_module, "KEY_PATIENCE_S", 0.05)
    saved = SavedModel("m", "1.0", "m.mar", True, 2, 3, batch_size or 1, 50, 7, 9, "python")

    async def scenario() -> None:
        if batch_size is None:
            await registry.load_at_startup(None, "m.mar")
        else:
            await registry.restore(saved)
        assert registry.is_waiting("m")
        await Snapshots(FileSnapshots(tmp_path / "config"), {}, None, registry).save("shutdown")
        await registry.close()

    asyncio.run(scenario())
    (path,) = (tmp_path / "config").iterdir()
    properties = {one.key: one.value for one in parse_properties(path.read_text())}
    (found,) = parse_models(properties["model_snapshot"])
    if batch_size is None:
        assert found == SavedModel("m", "1.0", "m.mar", False, 0, 0, 1, 100, 120, 120, "python")
    else:
        assert found == saved
