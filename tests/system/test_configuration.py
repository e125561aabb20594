"""Keys of config.properties that only a whole server shows the effect of."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import pytest

HANDLER = """
import json, os, time

def handle(data, context):
    if not data:
        while not os.path.exists(os.environ["GATE"]):
            time.sleep(0.02)
        return None
    if data[0].get("body") == b"much":
        return ["x" * 3000]
    pixels = context.system_properties["limit_max_image_pixels"]
    return [json.dumps({"environment": sorted(os.environ), "pixels": pixels})]
"""
CONFIG = {
    "initial_worker_port": "9100",
    "job_queue_size": "7",
    "default_response_timeout": "33",
    "default_startup_timeout": "44",
    "max_response_size": "2500",
    "blacklist_env_vars": "KEPT_.*|ANOTHER",
    "default_service_handler": "own.py",
    "limit_max_image_pixels": "false",
    "enable_envvars_config": "true",
    "enable_metrics_api": "false",
    "models": '{"m": {"1.0": {"minWorkers": 1, "maxWorkers": 1, "batchSize": 3,'
    ' "maxBatchDelay": 7}}}',
}
ENVIRONMENT = {
    "KEPT_BACK": "1",
    "ANOTHER": "1",
    "ANOTHER_ONE": "1",
    "TS_DEFAULT_STARTUP_TIMEOUT": "55",
}


def pack(path: Path) -> None:
    """An archive that names no handler."""
    manifest = {"runtime": "python", "model": {"modelName": "m", "modelVersion": "1.0"}}
    with ZipFile(path, "w") as archive:
        archive.writestr("own.py", HANDLER)
        archive.writestr("MAR-INF/MANIFEST.json", json.dumps(manifest))


def test_keys_have_their_effect_on_models_and_workers_and_listeners_wait_for_none(
    server_factory: Callable[..., Any], tmp_path: Path
) -> None:
    pack(tmp_path / "m.mar")
    gate = tmp_path / "gate"
    environment = {**ENVIRONMENT, "GATE": str(gate)}
    server = server_factory(models=["m.mar"], store=tmp_path, config=CONFIG, env=environment)
    # TorchServe: the server has started as soon as its models are registered.
    assert [worker["status"] for worker in server.workers("m")] == ["UNLOADING"]
    assert server.request("GET", "/ping")[0] == 200
    gate.touch()
    server.wait_until_ready("m")
    (described,) = json.loads(server.request("GET", "/models/m", port="management")[2])
    assert [worker["id"] for worker in described["workers"]] == ["9100"]
    assert described["jobQueueStatus"] == {"remainingCapacity": 7, "pendingRequests": 0}
    assert (described["responseTimeout"], described["startupTimeout"]) == (33, 55)
    assert (described["batchSize"], described["maxBatchDelay"]) == (3, 7)

    status, _, body = server.request("POST", "/predictions/m", "which")
    assert status == 200
    seen = json.loads(body)
    assert "ANOTHER_ONE" in seen["environment"]
    assert not {"KEPT_BACK", "ANOTHER"} & set(seen["environment"])
    assert seen["pixels"] is False

    status, _, body = server.request("POST", "/predictions/m", "much")
    assert (status, json.loads(body)["message"]) == (500, "Worker died.")
    assert "Metrics API bind to" not in server.log_text()


@pytest.mark.parametrize("has_metrics", [True, False])
def test_one_port_for_inference_and_management_is_told_as_that_of_inference(
    server_factory: Any, has_metrics: bool
) -> None:
    address = "http://127.0.0.1:0"
    config = {"inference_address": address, "management_address": address}
    server = server_factory(config={**config, "enable_metrics_api": str(has_metrics).lower()})
    told = [line for line in server.log_text().splitlines() if "API bind to: " in line]
    metrics = [f"Metrics API bind to: {server.metrics}"]
    assert told == [f"Inference API bind to: {address}", *(metrics if has_metrics else [])]
