"""Plugins in a real server: the examples of the documentation, run as they are."""

import json
import os
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from sealing import mar_bytes

Factory = Callable[..., Any]

EXAMPLES = Path(__file__).resolve().parents[2] / "docs" / "plugins"
GUESTS = """
import threading, time
from torchkeep.runtime.plugins import Response, endpoint

release = threading.Event()

@endpoint("wait")
def wait(request):
    release.wait(60)
    return "waited"

@endpoint("release", methods=["POST"])
async def let_go(request):
    release.set()
    return Response(request.body, 201, {"x-first": request.headers["x-name"]})

@endpoint("broken")
def broken(request):
    raise SystemExit("out of here")

@endpoint("state", port="management")
def state(request):
    return [[one.name, one.version, one.is_default] for one in request.server.models]
"""


@pytest.fixture
def store(tmp_path: Path) -> Path:
    path = tmp_path / "store"
    path.mkdir()
    (path / "one.mar").write_bytes(mar_bytes("one"))
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "plugins"
    path.mkdir()
    (path / "guests.py").write_text(GUESTS)
    (path / "old.jar").write_bytes(b"PK")
    return path


def test_endpoints_of_plugins_beside_the_servers_own(
    store: Path, folder: Path, server_factory: Factory
) -> None:
    server = server_factory(
        ["one.mar"],
        store,
        {"default_workers_per_model": "1", "cors_allowed_origin": "http://there"},
        args=["--plugins-path", f"{EXAMPLES / 'execution_parameters.py'},{folder}"],
        asks_for_keys=True,
    )
    text = server.log_text()
    assert f"{folder}/old.jar is a Java plugin and is not run" in text
    assert "Plugin endpoint GET /execution-parameters, inference port" in text
    assert f"Plugin {folder}/guests.py (sha256:" in text
    key = {kind: {"Authorization": f"Bearer {one}"} for kind, one in server.keys.items()}

    status, headers, body = server.request("GET", "/execution-parameters?x=hidden-query")
    assert (status, json.loads(body)["type"]) == (400, "InvalidKeyException")
    status, headers, body = server.request(
        "GET", "/execution-parameters?x=hidden-query", None, key["inference"]
    )
    assert (status, json.loads(body)) == (
        200,
        {"MaxConcurrentTransforms": 1, "BatchStrategy": "MULTI_RECORD", "MaxPayloadInMB": 6},
    )
    assert headers["access-control-allow-origin"] == "http://there"
    assert headers["x-request-id"]
    assert server.request("POST", "/execution-parameters", b"", key["inference"])[0] == 405

    # A function that leaves the interpreter, and one that does not come back, cost nobody else.
    status, _, body = server.request("GET", "/broken", None, key["inference"])
    assert (status, json.loads(body)["message"]) == (
        500,
        "Plugin endpoint /broken failed; the server's log says how.",
    )
    with pytest.raises(TimeoutError):
        server.request("GET", "/wait", None, key["inference"], timeout_s=0.2)
    server.wait_until_ready("one")
    text_headers = {**key["inference"], "Content-Type": "text/plain"}
    assert server.request("POST", "/predictions/one", b"x", text_headers)[0] == 200
    status, headers, body = server.request(
        "POST", "/release", b"body", {**key["inference"], "X-Name": "a"}
    )
    assert (status, headers["x-first"], body) == (201, "a", b"body")
    assert server.request("GET", "/wait", None, key["inference"])[2] == b"waited"

    status, _, body = server.request("GET", "/state", None, key["management"], "management")
    assert (status, json.loads(body)) == (200, [["one", "1.0", True]])
    assert server.request("GET", "/state", None, key["inference"])[0] == 404

    text = server.wait_for_lines('"GET /execution-parameters HTTP/1.1" 200', "SystemExit")
    assert "hidden-query" not in text


def test_a_function_that_never_returns_does_not_keep_the_server(
    store: Path, folder: Path, server_factory: Factory
) -> None:
    server = server_factory([], store, {"plugins_path": str(folder)})
    with pytest.raises(TimeoutError):
        server.request("GET", "/wait", timeout_s=0.2)
    assert server.stop() == 0


def test_snapshots_in_a_database(store: Path, server_factory: Factory, tmp_path: Path) -> None:
    database = tmp_path / "snapshots.db"
    env = {"SNAPSHOT_DATABASE": str(database)}
    plugin = str(EXAMPLES / "sqlite_snapshots.py")
    first = server_factory(
        ["one.mar"],
        store,
        {"plugins_path": plugin, "default_workers_per_model": "1"},
        env=env,
        snapshots=True,
    )
    assert "Plugin keeps the snapshots: SqliteSnapshots" in first.log_text()
    first.wait_until_ready("one")
    # Cannot be written to for a while: said once, and serving goes on.
    database.rename(tmp_path / "away")
    database.mkdir()
    path = "/models/one?min_worker=0&max_worker=0&synchronous=true"
    assert [first.request("PUT", path, port="management")[0] for _ in range(2)] == [200, 200]
    database.rmdir()
    (tmp_path / "away").rename(database)
    text = first.wait_for_lines("snapshots cannot be written to SqliteSnapshots: OperationalError")
    assert text.count("snapshots cannot be written to") == 1
    first.stop()
    assert not (first.workdir / "logs" / "config").exists()
    with closing(sqlite3.connect(database)) as opened:
        names = [name for (name,) in opened.execute("SELECT name FROM snapshots ORDER BY name")]
    assert [name.partition("-")[2] for name in names] == ["startup.cfg", "shutdown.cfg"]

    args = ["--plugins-path", plugin]
    second = server_factory([], store, args=args, env=env, snapshots=True, restart=first)
    assert f"Configuration: {names[-1]}" in second.log_text()
    _, _, body = second.request("GET", "/models/one", port="management")
    assert json.loads(body)[0]["minWorkers"] == 0
    second.stop()

    # A server that cannot know what it served must not serve nothing.
    database.write_bytes(b"no database, " * 100)
    third = server_factory(
        [], store, args=args, env=env, snapshots=True, restart=first, is_expected_to_start=False
    )
    assert third.process.wait(60) == 1
    assert "Invalid configuration: plugins_path: " in third.log_text()
    assert "the snapshot store cannot be made: DatabaseError" in third.log_text()


@pytest.mark.parametrize("name", ["broken", "strict"])
def test_a_plugin_that_may_not_run_stops_the_start(
    name: str, store: Path, folder: Path, server_factory: Factory, memory: Path
) -> None:
    config = {"plugins_path": str(folder)}
    if name == "broken":
        (folder / "guests.py").write_text("x = 1\nimport nowhere_to_be_found\n")
        cause = "guests.py, line 2: ModuleNotFoundError: No module named 'nowhere_to_be_found'"
    else:  # nothing from a volume of somebody else's runs beside the keys
        (memory / "guests.py").write_text(GUESTS)
        config = {"plugins_path": str(memory), "sandbox": "strict"}
        cause = "is on another mount than the server's own code"
    server = server_factory([], store, config, is_expected_to_start=False)
    assert server.process.wait(60) == 1
    (line,) = [one for one in server.log_text().splitlines() if "Invalid configuration" in one]
    assert line.startswith("Invalid configuration: plugins_path: ")
    assert cause in line
    (memory / "guests.py").unlink(missing_ok=True)


def test_a_plugin_of_the_image_runs_beside_secrets_and_is_announced(
    store: Path, folder: Path, server_factory: Factory
) -> None:
    if os.stat(folder).st_dev != os.stat(EXAMPLES).st_dev:
        pytest.skip("temporary files are on another mount than the code here")
    server = server_factory([], store, {"plugins_path": str(folder), "sandbox": "strict"})
    assert "Warning: PLUGINS run inside the server, with its keys" in server.log_text()
    assert server.request("GET", "/broken")[0] == 500
    line = GUESTS.splitlines().index('    raise SystemExit("out of here")') + 1
    place = f"{folder}/guests.py, line {line}"
    text = server.wait_for_lines(f"plugin endpoint /broken: SystemExit, {place}")
    assert "out of here" not in text
