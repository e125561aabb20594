"""`torchkeep health`, as the health check of the container runs it."""

import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any


def health(server: Any) -> tuple[int, str]:
    done = subprocess.run(
        [Path(sys.executable).with_name("torchkeep"), "health"],
        cwd=server.workdir,
        env={"TEMP": str(server.temp), "TMPDIR": str(server.temp), "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.stderr == ""
    return done.returncode, done.stdout


def test_health_of_the_server_that_runs_here(
    tmp_path: Path, server_factory: Callable[..., Any], poll: Callable[..., Any]
) -> None:
    manifest = (
        '{"model": {"modelName": "m", "handler": "h.py", "modelVersion": "1.0",'
        ' "configFile": "model-config.yaml"}}'
    )
    with zipfile.ZipFile(tmp_path / "m.mar", "w") as archive:
        archive.writestr("h.py", "raise RuntimeError('it does not load')\n")
        archive.writestr("model-config.yaml", "maxRetryTimeoutInSec: 0\n")
        archive.writestr("MAR-INF/MANIFEST.json", manifest)
    server = server_factory(["m.mar"], tmp_path)
    poll(lambda: server.request("GET", "/ping")[0] == 500, "a worker that failed counts")
    expected = f"Unhealthy: {server.inference} answers /ping with status 500\n"
    assert health(server) == (1, expected)
    assert server.request("DELETE", "/models/m", port="management")[0] == 200
    assert health(server) == (0, "Healthy\n")
    assert server.stop() == 0
    assert health(server) == (1, "Unhealthy: no server of this TEMP directory runs\n")
