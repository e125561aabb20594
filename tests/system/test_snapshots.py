"""A server that is started again serves what it served, as TorchServe's does."""

import json
import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from sealing import mar_bytes

Factory = Callable[..., Any]


@pytest.fixture
def store(tmp_path: Path) -> Path:
    path = tmp_path / "store"
    path.mkdir()
    for name, version in (("one", "1.0"), ("two", "1.0"), ("two", "2.0")):
        (path / f"{name}_{version}.mar").write_bytes(mar_bytes(name, version))
    return path


def snapshots(server: Any) -> list[Path]:
    return sorted((server.workdir / "logs" / "config").iterdir())


def models_of(path: Path) -> Any:
    line = next(one for one in path.read_text().splitlines() if one.startswith("model_snapshot="))
    text = line.partition("=")[2]
    return json.loads(text.replace("\\n", "\n").replace("\\:", ":"))["models"]


def change(server: Any, method: str, path: str) -> None:
    status, _, body = server.request(method, path, port="management")
    assert status == 200, body


def test_changes_are_kept_for_the_next_start(
    store: Path, server_factory: Factory, tmp_path: Path
) -> None:
    logs = tmp_path / "server0" / "logs"
    env = {"LOG_LOCATION": str(logs)}
    config = {"default_workers_per_model": "1"}
    first = server_factory(["one=one_1.0.mar"], store, config, snapshots=True, env=env)
    first.wait_until_ready("one")
    change(first, "PUT", "/models/one?min_worker=2&synchronous=true")
    change(first, "POST", "/models?url=two_1.0.mar&batch_size=3&response_timeout=7")
    change(first, "POST", "/models?url=two_2.0.mar")
    change(first, "PUT", "/models/two/2.0/set-default")
    change(first, "DELETE", "/models/two/1.0")
    change(first, "POST", "/models?url=two_1.0.mar&batch_size=3&response_timeout=7")
    first.stop()
    kinds = [path.name.partition("-")[2] for path in snapshots(first)]
    assert kinds == ["startup.cfg", *["snapshot.cfg"] * 6, "shutdown.cfg"]
    startup, *_, shutdown = snapshots(first)
    assert models_of(startup)["one"]["1.0"]["minWorkers"] == 1
    saved = models_of(shutdown)
    assert saved["one"]["1.0"]["minWorkers"] == 2
    assert saved["two"]["2.0"]["defaultVersion"] is True
    assert saved["two"]["1.0"]["batchSize"] == 3

    second = server_factory(
        ["two=two_1.0.mar"], store=store, snapshots=True, env=env, restart=first
    )
    second.wait_until_ready("one")
    assert len(second.workers("one")) == 2
    _, _, body = second.request("GET", "/models/two/all", port="management")
    described = {one["modelVersion"]: one for one in json.loads(body)}
    assert (described["1.0"]["batchSize"], described["1.0"]["responseTimeout"]) == (3, 7)
    assert described["1.0"]["loadedAtStartup"] is False
    _, _, body = second.request("GET", "/models/two", port="management")
    assert json.loads(body)[0]["modelVersion"] == "2.0"
    assert second.request("GET", "/ping")[0] == 200


def test_a_server_that_is_killed_leaves_its_last_snapshot(
    store: Path, server_factory: Factory, tmp_path: Path
) -> None:
    env = {"LOG_LOCATION": str(tmp_path / "server0" / "logs")}
    first = server_factory(["one=one_1.0.mar"], store=store, snapshots=True, env=env)
    change(first, "POST", "/models?url=two_1.0.mar")
    os.kill(first.pid, signal.SIGKILL)
    first.process.wait()
    shutil.rmtree(first.temp)  # what a killed server leaves there is another test's affair
    second = server_factory([], store=store, snapshots=True, env=env, restart=first)
    _, _, body = second.request("GET", "/models", port="management")
    assert [one["modelName"] for one in json.loads(body)["models"]] == ["one", "two"]


def test_an_archive_that_is_gone_is_named_and_nothing_is_served(
    store: Path, server_factory: Factory, tmp_path: Path
) -> None:
    env = {"LOG_LOCATION": str(tmp_path / "server0" / "logs")}
    first = server_factory(["one=one_1.0.mar"], store=store, snapshots=True, env=env)
    first.stop()
    (store / "one_1.0.mar").unlink()
    second = server_factory(
        [], store=store, snapshots=True, env=env, restart=first, is_expected_to_start=False
    )
    assert second.process.wait(30) == 1
    text = second.log_text()
    assert "Model archive file for model one, version 1.0 not found in model store" in text
    assert "--ncs" in text


def test_a_place_that_cannot_be_written_costs_a_warning(
    store: Path, server_factory: Factory, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("no directory")
    env = {"LOG_LOCATION": str(tmp_path / "file")}
    server = server_factory(["one=one_1.0.mar"], store=store, snapshots=True, env=env)
    change(server, "POST", "/models?url=two_1.0.mar")
    text = server.wait_for_lines("snapshots cannot be written to")
    assert text.count("snapshots cannot be written to") == 1


def test_without_snapshots_nothing_is_written(store: Path, server_factory: Factory) -> None:
    server = server_factory(["one=one_1.0.mar"], store=store)
    change(server, "POST", "/models?url=two_1.0.mar")
    server.stop()
    assert not (server.workdir / "logs" / "config").exists()
