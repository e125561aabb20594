"""Configuration files that exist out there, given to a whole server as they are."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

MANIFEST = '{"model": {"modelName": "m", "handler": "h.py"}}'
TYPES = """
def handle(data, context):
    return data and [type(row.get("body")).__name__ for row in data]
"""


def test_the_configuration_of_sagemaker(
    server_factory: Callable[..., Any], tmp_path: Path, free_port: Callable[[], int]
) -> None:
    model = tmp_path / "opt" / "ml" / "model"  # an archive that came unpacked, served in place
    (model / "MAR-INF").mkdir(parents=True)
    (model / "MAR-INF" / "MANIFEST.json").write_text(MANIFEST)
    (model / "h.py").write_text(TYPES)
    port = free_port()
    shared = "http://0.0.0.0:$$SAGEMAKER_BIND_TO_PORT$$"
    server = server_factory(
        models=[f"model={model}"],
        config={
            "inference_address": shared,
            "management_address": shared,
            "default_workers_per_model": "1",
            "decode_input_request": "false",
            "debug": "true",
        },
        env={"SAGEMAKER_BIND_TO_PORT": str(port)},
    )
    server.inference = server.management = f"http://127.0.0.1:{port}"
    server.wait_until_ready("model")
    assert server.request("GET", "/ping")[0] == 200
    headers = {"Content-Type": "application/json"}
    status, _, body = server.request("POST", "/invocations", b"{}", headers)
    assert (status, body) == (200, b"bytearray")
    (described,) = json.loads(server.request("GET", "/models/model", port="management")[2])
    assert (described["responseTimeout"], described["startupTimeout"]) == (2147483647, 2147483647)
    assert f"Inference API bind to: http://0.0.0.0:{port}\n" in server.log_text()


def test_the_configuration_of_the_docker_image(
    server_factory: Callable[..., Any], free_port: Callable[[], int]
) -> None:
    addresses = {
        f"{name}_address": f"http://0.0.0.0:{free_port()}"
        for name in ("inference", "management", "metrics")
    }
    server = server_factory(
        config={
            **addresses,
            "grpc_inference_address": "0.0.0.0",
            "grpc_management_address": "0.0.0.0",
            "number_of_netty_threads": "32",
            "job_queue_size": "1000",
            "model_store": "/home/model-server/model-store",
            "workflow_store": "/home/model-server/wf-store",
        },
    )
    log = server.log_text()
    assert "No effect: number_of_netty_threads (Java's)\n" in log
    assert (
        f"Warning: ANYBODY who can reach the management API at {addresses['management_address']}"
        in log
    )
    server.inference = addresses["inference_address"].replace("0.0.0.0", "127.0.0.1")
    assert server.request("GET", "/ping")[0] == 200
    assert server.stop() == 0
