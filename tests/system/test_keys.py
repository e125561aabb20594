"""Keys from the start of a server to its end, as in TorchServe."""

import json
import os
import stat
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from torchkeep.runtime.kernel import kernel_layers

HANDLER = """
def handle(data, context):
    if data is None:
        return None
    try:
        return [open(row["body"].decode()).read() if row["body"] else "idle" for row in data]
    except OSError as error:
        return [type(error).__name__ for _ in data]
"""
MANIFEST = {"model": {"modelName": "m", "handler": "h.py", "modelVersion": "1.0"}}


@pytest.fixture
def store(tmp_path: Path) -> Path:
    store = tmp_path / "store"
    store.mkdir()
    with zipfile.ZipFile(store / "m.mar", "w") as archive:
        archive.writestr("h.py", HANDLER)
        archive.writestr("MAR-INF/MANIFEST.json", json.dumps(MANIFEST))
    return store


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


def test_keys_from_start_to_stop(server_factory: Callable[..., Any], store: Path) -> None:
    server = server_factory(["m.mar"], store, asks_for_keys=True)
    server.wait_until_ready("m")
    file = server.workdir / "key_file.json"
    assert stat.filemode(file.stat().st_mode) == "-rw-------"
    assert f"Key file located at {file}\n" in server.log_text()

    first = server.keys
    for kind, path, port in (
        ("inference", "/predictions/m", "inference"),
        ("management", "/models", "management"),
        ("API", "/token?type=inference", "management"),
    ):
        assert server.request("GET", path, None, {}, port)[0] == 400
        assert server.request("GET", path, None, bearer(first[kind]), port)[0] == 200
    second = server.keys
    assert [kind for kind in first if first[kind] != second[kind]] == ["inference"]
    assert server.request("GET", "/ping", None, bearer(first["inference"]))[0] == 400
    assert server.request("GET", "/ping", None, bearer(second["inference"]))[0] == 200

    assert server.stop() == 0
    assert not file.exists()
    log = server.log_text()
    assert not any(key in log for key in (*first.values(), *second.values()))


@pytest.mark.skipif(
    bool(kernel_layers().missing_for_standard), reason=kernel_layers().missing_for_standard
)
def test_a_handler_cannot_read_the_keys(server_factory: Callable[..., Any], store: Path) -> None:
    server = server_factory(["m.mar"], store, asks_for_keys=True)
    server.wait_until_ready("m")
    for _ in range(2):  # renewed, it is another file
        body = str(server.workdir / "key_file.json")
        headers = bearer(server.keys["inference"])
        answer = server.request("POST", "/predictions/m", body, headers)
        assert answer[2] == b"PermissionError"
        path = "/token?type=inference"
        server.request("GET", path, None, bearer(server.keys["API"]), "management")


def test_a_killed_server_leaves_keys_that_the_next_one_does_not_know(
    server_factory: Callable[..., Any], store: Path
) -> None:
    server = server_factory([], store, asks_for_keys=True)
    old = server.keys
    server.process.kill()
    server.process.wait()
    (server.temp / ".model_server.pid").unlink()
    assert server.keys == old

    next_one = server_factory([], store, asks_for_keys=True)
    assert next_one.request("GET", "/ping", None, bearer(old["inference"]))[0] == 400
    assert set(old.values()).isdisjoint(next_one.keys.values())


def test_a_key_ends_with_its_time_and_is_renewed(
    server_factory: Callable[..., Any], store: Path, poll: Callable[..., Any]
) -> None:
    server = server_factory([], store, {"token_expiration_min": "0.03"}, asks_for_keys=True)
    started = time.monotonic()
    expired = server.keys
    poll(
        lambda: server.request("GET", "/ping", None, bearer(expired["inference"]))[0] == 400,
        "the key expires",
        30,
    )
    assert time.monotonic() - started < 20
    path = "/token?type=inference"
    assert server.request("GET", path, None, bearer(expired["API"]), "management")[0] == 200
    assert server.request("GET", "/ping", None, bearer(server.keys["inference"]))[0] == 200


@pytest.mark.parametrize("how", ["flag", "short flag", "file", "environment"])
def test_keys_can_be_switched_off(
    server_factory: Callable[..., Any], store: Path, how: str
) -> None:
    flags = {"flag": ["--disable-token-auth"], "short flag": ["--dt"]}
    config = {
        "file": {"disable_token_authorization": "true"},
        "environment": {"enable_envvars_config": "true"},
    }
    env = {"TS_DISABLE_TOKEN_AUTHORIZATION": "true"} if how == "environment" else {}
    server = server_factory([], store, config.get(how), flags.get(how, []), env, asks_for_keys=True)
    assert server.keys == {}
    assert server.request("GET", "/ping")[0] == 200
    assert server.request("GET", "/token?type=inference", port="management")[0] == 404


def test_stop_removes_the_key_file_at_once(
    server_factory: Callable[..., Any], store: Path, poll: Callable[..., Any]
) -> None:
    server = server_factory([], store, asks_for_keys=True)
    subprocess.run(
        [sys.executable, "-P", "-m", "torchkeep.runtime", "--stop"],
        cwd=server.workdir,
        env={**os.environ, "TMPDIR": str(server.temp)},
        check=True,
        timeout=60,
    )
    assert server.keys == {}
    poll(lambda: server.process.poll() == 0, "the server ends")


def test_a_server_that_cannot_hand_out_its_keys_does_not_start(store: Path, tmp_path: Path) -> None:
    file = tmp_path / "key_file.json"
    file.mkdir()
    ended = subprocess.run(
        [
            *(sys.executable, "-P", "-m", "torchkeep.runtime"),
            *("--foreground", "--ncs", "--model-store", str(store)),
        ],
        cwd=tmp_path,
        env={**os.environ, "TMPDIR": str(tmp_path), "TEMP": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ended.returncode == 1
    assert f"Invalid configuration: Cannot write {file}: Is a directory." in ended.stdout
    assert "--disable-token-auth" in ended.stdout


@pytest.mark.parametrize(
    ("config", "args", "is_warned"),
    [
        ({"management_address": "http://0.0.0.0:0"}, [], True),
        ({"management_address": "http://0.0.0.0:0", "enable_model_api": "false"}, [], True),
        ({}, [], False),
    ],
)
def test_management_that_anybody_can_reach_is_warned_of(
    server_factory: Callable[..., Any],
    store: Path,
    config: dict[str, str],
    args: list[str],
    is_warned: bool,
) -> None:
    log = server_factory([], store, config, args).log_text()
    assert ("ANYBODY who can reach the management API at http://0.0.0.0:0" in log) is is_warned
    can_register = config.get("enable_model_api") != "false"
    assert ("a model is code that runs here" in log) is (is_warned and can_register)


def test_management_with_keys_may_be_reached_from_elsewhere(
    server_factory: Callable[..., Any], store: Path
) -> None:
    config = {"management_address": "http://0.0.0.0:0"}
    server = server_factory([], store, config, asks_for_keys=True)
    assert "ANYBODY" not in server.log_text()
