"""No payload, key, token or query string in any log: a search for markers after a busy life."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

HANDLER = """
def handle(data, context):
    if data is None:
        return None
    text = bytes(data[0]["body"]).decode()
    if "fail" in text:
        raise ValueError(text)
    return [text.replace("input", "answer")]
"""
MARKERS = [
    b"marker-of-an-input",
    b"marker-of-an-answer",
    b"marker-of-a-token",
    b"marker-of-a-query",
    b"marker-of-a-header",
]


@pytest.mark.parametrize("sandbox", ["standard", "strict"])
def test_no_marker_reaches_a_log_or_a_file(
    sandbox: str, tmp_path: Path, server_factory: Callable[..., Any]
) -> None:
    model = tmp_path / "store" / "m"
    model.mkdir(parents=True)
    (model / "m.py").write_text(HANDLER)
    (model / "MAR-INF").mkdir()
    manifest = {"model": {"modelName": "m", "modelVersion": "1.0", "handler": "m.py"}}
    (model / "MAR-INF" / "MANIFEST.json").write_text(json.dumps(manifest))
    unreachable = "u=http://127.0.0.1:1/u.mar?sig=marker-of-a-query"
    server = server_factory(
        models=["m", unreachable],
        store=tmp_path / "store",
        # What a handler raises may hold its input: in standard it is logged, and here it is not.
        config={"sandbox": sandbox, "default_workers_per_model": "1", "handler_log": "memory"},
    )
    server.wait_until_ready("m")
    headers = {"Authorization": "Bearer marker-of-a-token", "X-Note": "marker-of-a-header"}

    def ask(path: str, body: str, port: str = "inference") -> tuple[int, bytes]:
        status, _, answer = server.request("POST", path, body, headers, port=port)
        return status, answer

    query = "q=marker-of-a-query"
    assert ask(f"/predictions/m?{query}", "marker-of-an-input") == (200, b"marker-of-an-answer")
    assert ask(f"/predictions/m?{query}", "fail marker-of-an-input")[0] == 503
    assert ask(f"/predictions/none?{query}", "marker-of-an-input")[0] == 404
    url = f"/models?url=http://127.0.0.1:1/v.mar%3F{query}&{query}"
    assert ask(url, "", port="management")[0] >= 400
    worker = server.workers("m")[0]["pid"]
    os.kill(worker, 9)
    server.wait_for_lines("Retry worker", "Failed to load model: http://127.0.0.1:1/u.mar?...")
    server.wait_until_ready("m")
    server.stop()
    everything = {path: path.read_bytes() for path in server.workdir.rglob("*") if path.is_file()}
    assert server.log_file in everything
    found = [
        (path, marker) for path, text in everything.items() for marker in MARKERS if marker in text
    ]
    assert found == []
