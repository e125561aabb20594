"""The servers of these pods, with the configurations that they get, asked as a kubelet asks.

The guest components and the TEE are stand-ins: demo/standins/key_services.py.
"""

import base64
import contextlib
import http.client
import json
import secrets
import ssl
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from key_services import Agent
from sealing import KEY_ID, sealed_store

from deploy.render import HERE
from torchkeep.runtime import simulated_tee

KEK = secrets.token_bytes(32)


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return sealed_store(tmp_path / "model-store", KEK)


@pytest.fixture
def agent() -> Iterator[Any]:
    service = Agent(simulated_tee.mint_quote)
    with service.listening():
        yield service


class Kubelet:
    """Asks the probes of a pod: a status from 200 to 399 counts, a certificate does not."""

    def __init__(self, pod: dict[str, Any], port: int) -> None:
        self._container = pod["spec"]["containers"][0]
        self._port = port
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        self._context.check_hostname, self._context.verify_mode = False, ssl.CERT_NONE

    def succeeds(self, probe: str) -> bool:
        wanted = self._container[probe]["httpGet"]
        assert (wanted["scheme"], wanted["port"]) == ("HTTPS", "attested")
        address = ("127.0.0.1", self._port)
        connection = http.client.HTTPSConnection(*address, context=self._context, timeout=20)
        with contextlib.closing(connection):
            try:
                connection.request("GET", wanted["path"])
                return 200 <= connection.getresponse().status < 400
            except OSError:
                return False


def keys(text: str) -> dict[str, str]:
    lines = (line for line in text.splitlines() if line and not line.startswith("#"))
    return dict(line.split("=", 1) for line in lines)


def elsewhere(config: dict[str, str], port: int, **changed: str) -> dict[str, str]:
    """The same configuration on free ports of this machine, and with a store of its own."""
    own = ("inference_address", "management_address", "metrics_address", "model_store")
    kept = {key: value for key, value in config.items() if key not in own}
    return {**kept, "attested_address": f"https://127.0.0.1:{port}", **changed}


def test_a_confidential_pod_is_alive_without_its_key_and_ready_with_it(
    server_factory: Callable[..., Any],
    free_port: Callable[[], int],
    poll: Callable[..., Any],
    store: Path,
    agent: Agent,
    rendered: Any,
) -> None:
    port = free_port()
    config = keys((HERE / "confidential.properties").read_text())
    assert config["inference_address"].startswith("http://127.0.0.1:")
    assert config["management_address"].startswith("http://127.0.0.1:")
    hub = config["key_source"].removeprefix("cdh:")
    config = elsewhere(
        config,
        port,
        evidence=f"{config['evidence']}:{agent.address}",
        key_source=config["key_source"].replace(hub, agent.address),
    )
    server = server_factory(store=store, config=config)
    kubelet = Kubelet(rendered.pod, port)
    poll(lambda: kubelet.succeeds("startupProbe"), "the listener")
    server.wait_for_lines("waits for its key")
    assert kubelet.succeeds("livenessProbe")
    assert not kubelet.succeeds("readinessProbe")
    agent.resources[KEY_ID.removeprefix("kbs:///")] = KEK
    poll(lambda: kubelet.succeeds("readinessProbe"), f"ready\n{server.log_text()}")
    # The gauge that the autoscaler looks at.
    text = server.request("GET", "/metrics", port="metrics")[2].decode()
    (autoscaler,) = [
        one
        for one in rendered.documents("horizontal.yaml")
        if one["kind"] == "HorizontalPodAutoscaler"
    ]
    (metric,) = autoscaler["spec"]["metrics"]
    assert f"\n{metric['pods']['metric']['name']}{{" in text
    assert f"# TYPE {metric['pods']['metric']['name']} gauge" in text


def test_the_simulated_pod_serves(
    server_factory: Callable[..., Any],
    free_port: Callable[[], int],
    poll: Callable[..., Any],
    store: Path,
    tmp_path: Path,
    rendered: Any,
) -> None:
    config_map, pod = rendered.documents("pod-simulated.yaml")
    config = keys(config_map["data"]["config.properties"])
    key_file = tmp_path / "keys.json"
    key_file.write_text(json.dumps({KEY_ID: base64.b64encode(KEK).decode()}))
    key_file.chmod(0o440)
    in_pod = Path(config["key_source"].removeprefix("file:"))
    assert in_pod.name == key_file.name
    assert str(in_pod.parent) in [
        mount["mountPath"] for mount in pod["spec"]["containers"][0]["volumeMounts"]
    ]
    port = free_port()
    config = elsewhere(config, port, key_source=f"file:{key_file}")
    serve, *flags = pod["spec"]["containers"][0]["args"]
    assert serve == "serve"
    server = server_factory(store=store, config=config, args=flags)
    kubelet = Kubelet(pod, port)
    poll(lambda: kubelet.succeeds("readinessProbe"), f"ready\n{server.log_text()}")
    assert kubelet.succeeds("startupProbe")
    assert kubelet.succeeds("livenessProbe")
    assert server.request("POST", "/predictions/m", b"x")[::2] == (200, b"answer")
    assert "SIMULATED" in server.log_text()
