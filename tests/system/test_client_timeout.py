"""clientTimeoutInMills: whom TorchServe never answers gets a 503, and the worker serves on."""

import json
import zipfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from http.client import IncompleteRead
from pathlib import Path
from typing import Any

import pytest

HANDLER = """
import os, time
from ts.handler_utils.utils import send_intermediate_predict_response
def handle(data, context):
    if data is None:
        return
    go = context.get_request_header(0, "go")
    if context.get_request_header(0, "streams"):
        send_intermediate_predict_response(["one "], context.request_ids, "", 200, context)
    while go and not os.path.exists(go):
        time.sleep(0.01)
    return [str(os.getpid())]
"""
CONFIG = "minWorkers: 1\nmaxWorkers: 1\nclientTimeoutInMills: 300\n"
MODEL = {
    "modelName": "m",
    "handler": "h.py",
    "modelVersion": "1.0",
    "configFile": "model-config.yaml",
}


@pytest.fixture
def server(tmp_path: Path, server_factory: Callable[..., Any]) -> Any:
    store = tmp_path / "store"
    store.mkdir()
    with zipfile.ZipFile(store / "m.mar", "w") as archive:
        archive.writestr("h.py", HANDLER)
        archive.writestr("model-config.yaml", CONFIG)
        archive.writestr("MAR-INF/MANIFEST.json", json.dumps({"model": MODEL}))
    server = server_factory(models=["m.mar"], store=store)
    server.wait_until_ready("m")
    return server


def test_whoever_waited_long_enough_gets_503_and_the_worker_serves_on(
    server: Any, tmp_path: Path, poll: Callable[..., Any]
) -> None:
    go = tmp_path / "go"
    with ThreadPoolExecutor(3) as clients:
        # One is at the worker, one was perhaps sent ahead, one is in the queue.
        waiting = [
            clients.submit(server.request, "POST", "/v2/models/m/infer", b"x", {"go": str(go)})
            for _ in range(3)
        ]
        for client in waiting:
            status, headers, body = client.result()
            assert (status, headers["connection"]) == (503, "close")
            error = json.loads(body)
            assert error["type"] == "ServiceUnavailableException"
            assert "within its clientTimeoutInMills, 300 ms" in error["message"]
    go.touch()
    worker = server.workers("m")[0]["pid"]

    def is_served() -> bool:
        status, _, body = server.request("POST", "/predictions/m", b"x")
        return (status, body) == (200, str(worker).encode())

    poll(is_served, "an answer of the same worker")


def test_a_stream_breaks_off_at_the_limit(server: Any, tmp_path: Path) -> None:
    headers = {"go": str(tmp_path / "go"), "streams": "yes"}
    with pytest.raises((ConnectionError, IncompleteRead)):
        server.request("POST", "/predictions/m", b"x", headers)
    (tmp_path / "go").touch()
    (worker,) = server.workers("m")
    assert worker["status"] == "READY"
