"""KServe's own Python SDK talks to a server that was started as the runtime starts it.

The SDK has an environment of its own, build/kserve: its packages are not ours to choose.
"""

import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from sealing import mar_bytes

ROOT = Path(__file__).resolve().parents[2]
SDK = "kserve==0.21.0"
# Numbers in: a sum for each instance, or input.
HANDLER = """
def total(values):
    return sum(map(total, values)) if isinstance(values, list) else values

def handle(data, context):
    return data and [total(row["data"] if isinstance(row, dict) else row) for row in data]
"""
# As KServe's users have it, from the documentation of TorchServe's KServe image.
CONFIG = """\
inference_address=http://0.0.0.0:8085
management_address=http://0.0.0.0:8085
metrics_address=http://0.0.0.0:8082
grpc_inference_port=7070
grpc_management_port=7071
enable_envvars_config=true
install_py_dep_per_model=true
enable_metrics_api=true
metrics_mode=prometheus
NUM_WORKERS=1
number_of_netty_threads=4
job_queue_size=10
model_store=/mnt/models/model-store
model_snapshot={"name":"startup.cfg","modelCount":1,"models":{"sums":{"1.0":{"defaultVersion":true,"marName":"sums.mar","minWorkers":1,"maxWorkers":5,"batchSize":1,"maxBatchDelay":10,"responseTimeout":120}}}}
"""


@pytest.fixture(scope="module")
def sdk() -> Path:
    """The Python of an environment with the SDK."""
    home = ROOT / "build/kserve"
    python = home / "bin/python"
    wanted = f"import importlib.metadata as m; assert m.version('kserve') == '{SDK[8:]}'"
    if python.exists() and subprocess.run([python, "-c", wanted]).returncode == 0:
        return python
    subprocess.run([sys.executable, "-m", "venv", "--clear", home], check=True)
    install = [python, "-m", "pip", "--disable-pip-version-check", "install", "--quiet", SDK]
    run = subprocess.run(install, capture_output=True, text=True)
    if run.returncode != 0:
        pytest.skip(f"{SDK} cannot be installed here: {run.stderr.strip()[-200:]}")
    return python


class Runtime:
    """A server with the arguments and variables of the runtime, on paths and ports here."""

    def __init__(
        self,
        runtime: dict[str, Any],
        image_variables: list[dict[str, str]],
        protocol: str,
        place: Path,
        free_port: Callable[[], int],
    ) -> None:
        models = place / "models"
        self.ports = {name: str(free_port()) for name in ("8080", "8082", "8085")}

        def here(text: str) -> str:
            text = text.replace("/mnt/models", str(models)).replace("0.0.0.0", "127.0.0.1")
            return re.sub(r"\b(8080|8082|8085)\b", lambda found: self.ports[found[0]], text)

        (models / "model-store").mkdir(parents=True)
        (models / "model-store/sums.mar").write_bytes(mar_bytes("sums", files={"h.py": HANDLER}))
        (models / "config").mkdir()
        (models / "config/config.properties").write_text(here(CONFIG))
        # The image's variables that lead to its volume, KServe's for this name, the runtime's own.
        volume = place / "run"
        volume.mkdir()
        in_volume = {
            one["name"]: one["value"].replace("/run/torchkeep", str(volume))
            for one in image_variables
            if one["value"].startswith("/run/torchkeep")
        }
        (container,) = runtime["spec"]["containers"]
        envelope = {"v1": "kserve", "v2": "kservev2"}[protocol]
        named = {one["name"]: one["value"] for one in container["env"]}
        named["TS_SERVICE_ENVELOPE"] = named["TS_SERVICE_ENVELOPE"].replace(
            "{{.Labels.serviceEnvelope}}", envelope
        )
        environment = {
            **os.environ,
            **in_volume,
            "PROTOCOL_VERSION": protocol,
            **{name: here(value) for name, value in named.items()},
        }
        # Behind the image's entry point.
        command = [sys.executable, "-P", "-m", "torchkeep.runtime.container"]
        command += map(here, container["args"])
        self.log_file = place / "log"
        with self.log_file.open("wb") as log:
            self.process = subprocess.Popen(
                command, cwd=volume, env=environment, stdout=log, stderr=subprocess.STDOUT
            )

    @property
    def url(self) -> str:
        """Where KServe expects it: the container's port 8080."""
        return f"http://127.0.0.1:{self.ports['8080']}"

    def is_ready(self) -> bool:
        """By the readiness probe of the runtime."""
        assert self.process.poll() is None, self.log_file.read_text()
        try:
            with urllib.request.urlopen(f"{self.url}/v2/health/ready", timeout=20):
                return True
        except (urllib.error.URLError, OSError):
            return False

    def stop(self) -> None:
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(60)
        finally:
            self.process.kill()
            self.process.wait()


@pytest.fixture
def start(
    rendered: Any, tmp_path: Path, free_port: Callable[[], int], poll: Callable[..., Any]
) -> Any:
    started: list[Runtime] = []

    def start_runtime(protocol: str) -> Runtime:
        (runtime,) = rendered.documents("kserve-runtime.yaml")
        variables = rendered.pod["spec"]["containers"][0]["env"]
        started.append(Runtime(runtime, variables, protocol, tmp_path, free_port))
        poll(started[-1].is_ready, "the runtime's readiness")
        return started[-1]

    yield start_runtime
    for one in started:
        one.stop()


def asked_by(python: Path, protocol: str, url: str) -> dict[str, Any]:
    client = Path(__file__).with_name("kserve_client.py")
    run = subprocess.run(
        [python, client, protocol, url, "sums"], capture_output=True, text=True, timeout=120
    )
    assert run.returncode == 0, run.stderr
    said: dict[str, Any] = json.loads(run.stdout)
    return said


@pytest.mark.long
@pytest.mark.timeout(900)
def test_the_sdk_speaks_version_1(sdk: Path, start: Callable[[str], Runtime]) -> None:
    assert asked_by(sdk, "v1", start("v1").url) == {
        "live": True,
        "model ready": True,
        "infer": {"predictions": [3, 7]},
        "explain": {"explanations": [3, 7]},
        "unknown": 404,
    }


@pytest.mark.long
@pytest.mark.timeout(900)
def test_the_sdk_speaks_version_2(sdk: Path, start: Callable[[str], Runtime]) -> None:
    assert asked_by(sdk, "v2", start("v2").url) == {
        "live": True,
        "ready": True,
        "model ready": True,
        "infer": {
            "id": "mine",
            "model": ["sums", None],  # the SDK does not read the version of an answer
            "outputs": [["first", "INT64", [1], [10]], ["second", "FP64", [1], [0.75]]],
        },
        "unknown is ready": False,
        "unknown": 404,
    }


def test_the_management_api_is_not_on_that_port(start: Callable[[str], Runtime]) -> None:
    """KServe gives port 8080 to everybody: nobody may scale or unregister there."""
    runtime = start("v1")
    begun = time.monotonic()
    for method, path in (("PUT", "/models/sums?min_worker=0"), ("DELETE", "/models/sums")):
        request = urllib.request.Request(f"{runtime.url}{path}", method=method)
        with pytest.raises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(request, timeout=20)
        assert refused.value.code == 404
        refused.value.close()
    assert runtime.is_ready()
    assert time.monotonic() - begun < 60
