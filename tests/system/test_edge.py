"""What docs/confidential.md says of a server at the edge: no network, a broker that goes away."""

import base64
import json
import os
import secrets
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import own_network
import pytest
from key_services import Broker
from sealing import KEY_ID, sealed_store

Factory = Callable[..., Any]
KEK = secrets.token_bytes(32)


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return sealed_store(tmp_path / "store", KEK)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root makes a network of its own")
def test_sealed_model_is_served_without_any_network(
    store: Path, memory: Path, tmp_path: Path, server_factory: Factory
) -> None:
    keys = tmp_path / "keys.json"
    keys.write_text(json.dumps({KEY_ID: base64.b64encode(KEK).decode()}))
    keys.chmod(0o600)
    server = server_factory(
        ["m.mar"],
        store,
        {
            "key_source": f"file:{keys}",
            "unpack_directory": str(memory),
            "default_workers_per_model": "1",
            "sandbox": "strict",
        },
        launcher=[sys.executable, own_network.__file__],
    )
    server.wait_for_lines("Model m 1.0: 1 of 1 workers ready")
    assert server.stop() == 0


def test_loaded_model_needs_its_broker_no_more_and_no_key_is_kept(
    store: Path, memory: Path, server_factory: Factory, poll: Any
) -> None:
    broker = Broker()
    broker.resources[KEY_ID.removeprefix("kbs:///")] = KEK
    with broker.listening():
        server = server_factory(
            ["m.mar"],
            store,
            {
                "key_source": f"kbs:{broker.address}",
                "insecure_simulated_tee": "true",
                "unpack_directory": str(memory),
                "default_workers_per_model": "1",
            },
        )
        server.wait_until_ready("m")
    # The broker is gone: a worker that dies is replaced all the same.
    [before] = server.workers("m")
    os.kill(before["pid"], signal.SIGKILL)

    def replaced() -> bool:
        [worker] = server.workers("m")
        return bool(worker["status"] == "READY" and worker["pid"] != before["pid"])

    poll(replaced, "another worker")
    assert server.request("POST", "/predictions/m", b"x")[2] == b"answer"
    assert server.request("GET", "/ping")[0] == 200
    # Loading it anew takes the key, and nobody has kept one.
    assert server.request("DELETE", "/models/m", port="management")[0] == 200
    status, _, body = server.request("POST", "/models?url=m.mar", port="management")
    assert (status, json.loads(body)["type"]) == (503, "ServiceUnavailableException")
    assert f"No key {KEY_ID}: unreachable." in json.loads(body)["message"]
