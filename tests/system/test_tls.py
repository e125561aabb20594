"""A whole server on https, one port shared by inference and management, and on a unix socket."""

import socket
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import requests
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    pkcs12,
)

from torchkeep.runtime.tls import self_signed

TIMEOUT_S = 60


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    """What clients trust; beside it a keystore and a key, both of this certificate."""
    certificate, key = self_signed(["localhost", "127.0.0.1"])
    path = tmp_path / "certificate.pem"
    path.write_bytes(certificate.public_bytes(Encoding.PEM))
    (tmp_path / "key.pem").write_bytes(
        key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    )
    encryption = BestAvailableEncryption(b"hunter2")
    store = pkcs12.serialize_key_and_certificates(b"ts", key, certificate, None, encryption)
    (tmp_path / "keystore.p12").write_bytes(store)
    return path


def curl(*arguments: str | Path) -> str:
    command = ["curl", "--silent", "--show-error", "--max-time", str(TIMEOUT_S), *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def test_one_https_port_for_inference_and_management_and_metrics_on_a_unix_socket(
    server_factory: Callable[..., Any],
    certificate: Path,
    tmp_path: Path,
    free_port: Callable[[], int],
) -> None:
    base = f"https://127.0.0.1:{free_port()}"
    metrics = tmp_path / "metrics.sock"
    server = server_factory(
        config={
            "inference_address": base,
            "management_address": base,
            "metrics_address": f"unix:{metrics}",
            "metrics_mode": "prometheus",
            "keystore": str(tmp_path / "keystore.p12"),
            "keystore_pass": "hunter2",
            "max_request_size": "3000000",
        },
    )
    # TorchServe: a shared port is told once, as that of inference
    told = [line for line in server.log_text().splitlines() if " API bind to: " in line]
    assert told == [f"Inference API bind to: {base}", f"Metrics API bind to: unix:{metrics}"]
    with requests.Session() as session:
        session.trust_env = False  # it may name other authorities
        session.verify = str(certificate)
        for _ in range(3):  # one connection
            answer = session.get(f"{base}/ping", timeout=TIMEOUT_S)
            assert answer.json() == {"status": "Healthy"}
        answer = session.get(f"{base}/models", timeout=TIMEOUT_S)
        assert answer.json() == {"models": []}
        answer = session.post(f"{base}/predictions/m", bytes(3_000_000), timeout=TIMEOUT_S)
        assert answer.json()["message"] == "Model not found: m"
        answer = session.post(f"{base}/predictions/m", bytes(3_000_001), timeout=TIMEOUT_S)
        assert answer.status_code == 413
    trusting = ("--cacert", certificate)
    code = ("--output", tmp_path / "out", "--write-out", "%{http_code}")
    chunked = ("-H", "Transfer-Encoding: chunked", "--data-binary", f"@{certificate}")
    assert curl(*trusting, *code, *chunked, f"{base}/predictions/m") == "404"
    assert curl(*code, base.replace("https", "http") + "/ping") == "403"
    assert "torchkeep_workers" in curl("--unix-socket", metrics, "http://localhost/metrics")
    with socket.create_connection(("127.0.0.1", int(base.rpartition(":")[2]))) as silent:
        assert server.stop() == 0
        silent.settimeout(TIMEOUT_S)
        assert silent.recv(1) == b""
    log = server.log_text()
    assert "Traceback" not in log
    assert "hunter2" not in log
    assert not metrics.exists()


@pytest.mark.parametrize(
    ("config", "said"),
    [
        (
            {"inference_address": "https://127.0.0.1:0", "keystore": "{tmp}/keystore.p12"},
            "Invalid configuration: keystore: {tmp}/keystore.p12 cannot be opened: keystore_pass",
        ),
        (
            {"metrics_address": "unix:{tmp}/missing/socket"},
            "Failed to bind to address: unix:{tmp}/missing/socket (No such file or directory)",
        ),
    ],
)
def test_what_cannot_be_served_ends_the_start_with_one_line(
    config: dict[str, str],
    said: str,
    server_factory: Callable[..., Any],
    certificate: Path,
    tmp_path: Path,
) -> None:
    placed = {key: value.format(tmp=tmp_path) for key, value in config.items()}
    server = server_factory(config=placed, is_expected_to_start=False)
    assert server.process.wait(TIMEOUT_S) == 1
    assert said.format(tmp=tmp_path) in server.log_text()
    assert "Traceback" not in server.log_text()
