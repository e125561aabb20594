"""`torchserve --stop`: under load it loses no accepted request, and it leaves nothing."""

import http.client
import ssl
import subprocess
import sys
import threading
import time
import zipfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

SLOW_ECHO = """
import time
def handle(data, context):
    if data is not None:
        time.sleep(0.03)
        return [bytes(row["body"]) for row in data]
"""
MANIFEST = '{"model": {"modelName": "slow", "handler": "slow.py", "modelVersion": "1.0"}}'


@pytest.fixture
def store(tmp_path: Path) -> Path:
    store = tmp_path / "store"
    store.mkdir()
    with zipfile.ZipFile(store / "slow.mar", "w") as archive:
        archive.writestr("slow.py", SLOW_ECHO)
        archive.writestr("MAR-INF/MANIFEST.json", MANIFEST)
    return store


class Client(threading.Thread):
    """Sends requests, each on a connection of its own, until it is refused one."""

    def __init__(self, server: Any, number: int) -> None:
        super().__init__()
        self.scheme, _, self.address = server.inference.partition("://")
        self.tls = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        self.tls.check_hostname, self.tls.verify_mode = False, ssl.CERT_NONE
        self.number = number
        self.outcomes: Counter[str] = Counter()

    def run(self) -> None:
        count = 0
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            count += 1
            body = f"{self.number}.{count}".encode()
            connection = self.connection()
            try:
                connection.connect()
            except ConnectionRefusedError:
                self.outcomes["refused"] += 1
                return
            try:
                connection.request("POST", "/predictions/slow", body)
                response = connection.getresponse()
                answer = response.read()
                right = response.status == 200 and answer == body
                self.outcomes["answered" if right else f"{response.status} {answer!r}"] += 1
            except (OSError, http.client.HTTPException) as error:
                self.outcomes[repr(error)] += 1
            finally:
                connection.close()

    def connection(self) -> http.client.HTTPConnection:
        if self.scheme == "http":
            return http.client.HTTPConnection(self.address, timeout=30)
        return http.client.HTTPSConnection(self.address, timeout=30, context=self.tls)


def torchserve(server: Any, *args: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-P", "-m", "torchkeep.runtime", *args],
        cwd=server.workdir,
        env={"TMPDIR": str(server.temp), "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_stop_under_load_loses_no_accepted_request(
    store: Path, server_factory: Callable[..., Any], poll: Callable[..., Any], scheme: str
) -> None:
    server = server_factory(models=["slow.mar"], store=store, inference_scheme=scheme)
    server.wait_until_ready("slow")
    pid_file = server.temp / ".model_server.pid"
    assert pid_file.read_text().split()[0] == str(server.pid)
    (server.workdir / "key_file.json").write_text("{}")
    family = server.descendants()
    assert family
    clients = [Client(server, n) for n in range(16)]
    for client in clients:
        client.start()
    poll(lambda: sum(c.outcomes["answered"] for c in clients) > 50, "requests flow")

    stopped = torchserve(server, "--stop")
    assert (stopped.returncode, stopped.stdout) == (0, "TorchServe has stopped.\n")
    for client in clients:
        client.join(60)
        assert not client.is_alive()
    outcomes = sum((client.outcomes for client in clients), Counter())
    assert set(outcomes) == {"answered", "refused"}, outcomes

    assert server.process.wait(60) == 0
    assert not pid_file.exists()
    assert not (server.workdir / "key_file.json").exists()
    assert not [process for process in family if process.is_running() and not is_zombie(process)]
    assert [path for path in server.temp.rglob("*") if path.is_file()] == []


def is_zombie(process: psutil.Process) -> bool:
    try:
        return bool(process.status() == psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return True


def test_stop_when_nothing_runs(tmp_path: Path, server_factory: Callable[..., Any]) -> None:
    server = server_factory(store=tmp_path)
    server.stop()
    answer = torchserve(server, "--stop")
    assert (answer.returncode, answer.stdout) == (0, "TorchServe is not currently running.\n")


def test_a_place_for_a_socket_that_is_not_there_stops_the_start(server_factory: Any) -> None:
    config = {"management_address": "unix:/nowhere/x.sock"}
    server = server_factory(config=config, is_expected_to_start=False)
    assert server.process.wait(60) == 1
    said = "Failed to bind to address: unix:/nowhere/x.sock: No such file or directory\n"
    assert said in server.log_text()


def test_a_taken_port_stops_the_start(tmp_path: Path, server_factory: Callable[..., Any]) -> None:
    server = server_factory(store=tmp_path)
    config = f"inference_address={server.inference}\nmanagement_address=http://127.0.0.1:0\n"
    other = tmp_path / "other"
    other.mkdir()
    (other / "config.properties").write_text(config)
    answer = subprocess.run(
        [
            sys.executable, "-P", "-m", "torchkeep.runtime", "--foreground",
            "--ts-config", str(other / "config.properties"), "--model-store", str(tmp_path),
        ],
        cwd=other,
        env={"TMPDIR": str(other), "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )  # fmt: skip
    assert answer.returncode == 1
    assert f"Failed to bind to address: {server.inference}" in answer.stdout
    assert "Traceback" not in answer.stdout + answer.stderr
