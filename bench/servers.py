"""A real server, Torchkeep or TorchServe, started from its command and asked over HTTP."""

import contextlib
import http.client
import json
import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

START_LIMIT_S = 120.0
SCALE_LIMIT_S = 180.0
STOP_LIMIT_S = 30.0
POLL_S = 0.02
LOG_LINES_SHOWN = 30
DULL = ("ACCESS_LOG", "TS_METRICS")


class ServerFailed(Exception):
    """A server ended, or did not do in time what it was asked for."""


@dataclass(frozen=True, slots=True)
class Product:
    """What is compared: a name for the table, and the `torchserve` command to start."""

    name: str
    torchserve: Path


@dataclass(slots=True)
class Server:
    """A running server."""

    product: Product
    process: "subprocess.Popen[bytes]"
    started_at: float
    inference: str
    management: str
    log: Path

    def url(self, model: str) -> str:
        return f"http://{self.inference}/predictions/{model}"

    def predict(self, model: str, payload: bytes, content_type: str) -> bytes:
        """One answer, on a connection of its own."""
        path = f"/predictions/{model}"
        headers = {"Content-Type": content_type}
        status, body = _request(self.inference, "POST", path, payload, headers)
        if status != 200:
            raise ServerFailed(f"{self.product.name}: POST {path} answered {status}: {body!r}")
        return body

    def ask(self, path: str, body: bytes, content_type: str) -> tuple[int, str, bytes]:
        """Status, content type and body of whatever the answer is."""
        return _answer(self.inference, "POST", path, body, {"Content-Type": content_type})

    def get_json(self, path: str) -> Any:
        status, body = _request(self.inference, "GET", path)
        if status != 200:
            raise ServerFailed(f"{self.product.name}: GET {path} answered {status}: {body!r}")
        return json.loads(body)

    def first_answer(self, model: str, payload: bytes) -> float:
        """Seconds from the start of the process to the first 200."""

        def answered() -> bool:
            with contextlib.suppress(OSError, http.client.HTTPException):
                status, _ = _request(self.inference, "POST", f"/predictions/{model}", payload)
                return status == 200
            return False

        self._wait(answered, f"the first answer of {model}", START_LIMIT_S)
        return time.perf_counter() - self.started_at

    def workers(self, model: str) -> list[dict[str, Any]]:
        """As the management API describes them; empty while there are none."""
        status, body = _request(self.management, "GET", f"/models/{model}")
        return json.loads(body)[0]["workers"] if status == 200 else []

    def wait_ready(self, model: str) -> None:
        def ready() -> bool:
            try:
                workers = self.workers(model)
            except (OSError, http.client.HTTPException):
                return False
            return bool(workers) and all(worker["status"] == "READY" for worker in workers)

        self._wait(ready, f"all workers of {model} READY", START_LIMIT_S)

    def scale(self, model: str, workers: int) -> float:
        """Seconds until exactly so many workers are there and READY."""
        started = time.perf_counter()
        query = f"min_worker={workers}&max_worker={workers}&synchronous=true"
        status, body = _request(self.management, "PUT", f"/models/{model}?{query}")
        if status >= 300:
            raise ServerFailed(f"{self.product.name}: scaling {model} answered {status}: {body!r}")

        def scaled() -> bool:
            states = [worker["status"] for worker in self.workers(model)]
            return states == ["READY"] * workers

        self._wait(scaled, f"{workers} workers of {model} READY", SCALE_LIMIT_S)
        return time.perf_counter() - started

    def predict_on(self, pid: int, model: str, payload: bytes, content_type: str) -> None:
        """Predict, as many at a time as there are workers, until this worker has computed."""
        count = len(self.workers(model))
        before = cpu_ticks(pid)

        def has_computed() -> bool:
            with ThreadPoolExecutor(count) as pool:
                answers = [
                    pool.submit(self.predict, model, payload, content_type) for _ in range(count)
                ]
                for answer in answers:
                    answer.result()
            return cpu_ticks(pid) > before

        self._wait(has_computed, f"a prediction of {model} by worker {pid}", SCALE_LIMIT_S)

    def _wait(self, condition: Callable[[], bool], what: str, limit_s: float) -> None:
        deadline = time.monotonic() + limit_s
        while not condition():
            if self.process.poll() is not None:
                raise ServerFailed(
                    f"{self.product.name} ended with {self.process.returncode} before {what}:\n"
                    + self._last_lines()
                )
            if time.monotonic() > deadline:
                raise ServerFailed(
                    f"{self.product.name}: not within {limit_s:.0f} s: {what}:\n"
                    + self._last_lines()
                )
            time.sleep(POLL_S)

    def _last_lines(self) -> str:
        # Our own looks at whether it is ready would otherwise hide everything else.
        text = self.log.read_text(errors="replace")
        lines = [line for line in text.splitlines() if not any(map(line.count, DULL))]
        return "\n".join(lines[-LOG_LINES_SHOWN:])


@contextmanager
def running(
    product: Product, store: Path, model: str, python_path: str, options: Sequence[str] = ()
) -> Iterator[Server]:
    """A server with one model, on free ports, with every file of its own in a directory."""
    with TemporaryDirectory(prefix="bench-") as directory:
        work_dir = Path(directory)
        server = _start(product, store, model, python_path, options, work_dir)
        try:
            yield server
        finally:
            _stop(server.process)


def _start(
    product: Product,
    store: Path,
    model: str,
    python_path: str,
    options: Sequence[str],
    work_dir: Path,
) -> Server:
    inference, management, metrics, *grpc = (f"127.0.0.1:{port}" for port in free_ports(5))
    lines = [f"inference_address=http://{inference}", f"management_address=http://{management}"]
    lines.append(f"metrics_address=http://{metrics}")
    for name, address in zip(("grpc_inference_port", "grpc_management_port"), grpc, strict=True):
        lines.append(f"{name}={address.rpartition(':')[2]}")
    config = work_dir / "config.properties"
    config.write_text("\n".join(lines) + "\n")
    temp = work_dir / "tmp"
    temp.mkdir()
    environment = {**os.environ, "TMPDIR": str(temp), "TEMP": str(temp)}
    environment["PYTHONPATH"] = with_python_path(python_path)
    log = work_dir / "server.log"
    command = [str(product.torchserve), "--start", "--foreground", "--ncs"]
    command += ["--disable-token-auth", "--ts-config", str(config), "--model-store", str(store)]
    command += ["--models", f"{model}={model}.mar", *options]
    with log.open("wb") as output:
        started_at = time.perf_counter()
        process = subprocess.Popen(
            command,
            cwd=work_dir,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    return Server(product, process, started_at, inference, management, log)


def _stop(process: "subprocess.Popen[bytes]") -> None:
    """End the server and, TorchServe being three programs, whatever it started."""
    for number, limit_s in ((signal.SIGTERM, STOP_LIMIT_S), (signal.SIGKILL, STOP_LIMIT_S)):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        deadline = time.monotonic() + limit_s
        while time.monotonic() < deadline:
            process.poll()
            if not _group_lives(process.pid):
                return
            time.sleep(POLL_S)
    raise ServerFailed(f"processes of group {process.pid} cannot be ended")


def _group_lives(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


def with_python_path(directory: str) -> str:
    """This directory before whatever PYTHONPATH we were started with."""
    return os.pathsep.join(filter(None, (directory, os.environ.get("PYTHONPATH"))))


def free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


def private_memory_mb(pid: int) -> float:
    """What would be freed if this process ended: its pages that no other process maps."""
    text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    fields = dict(line.split(":", 1) for line in text.splitlines()[1:])
    kilobytes = [int(fields[name].split()[0]) for name in ("Private_Clean", "Private_Dirty")]
    return sum(kilobytes) * 1024 / 1e6


def cpu_ticks(pid: int) -> int:
    """Processor time that a process has used, in clock ticks (10 ms)."""
    after_name = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(after_name[11]) + int(after_name[12])


def _request(
    address: str,
    method: str,
    path: str,
    body: bytes | None = None,
    headers: dict[str, str] | None = None,
) -> tuple[int, bytes]:
    status, _, answer = _answer(address, method, path, body, headers)
    return status, answer


def _answer(
    address: str,
    method: str,
    path: str,
    body: bytes | None,
    headers: dict[str, str] | None,
) -> tuple[int, str, bytes]:
    connection = http.client.HTTPConnection(address, timeout=SCALE_LIMIT_S)
    try:
        connection.request(method, path, body, headers or {})
        response = connection.getresponse()
        return response.status, response.headers.get("content-type", ""), response.read()
    finally:
        connection.close()
