"""A server of either product, started from its `torchserve` command for one scenario."""

import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory

import psutil

from bench.servers import Product, ServerFailed, free_ports
from conformance import raw_http
from conformance.case import Scenario
from conformance.files import serving

OURS, THEIRS = "Torchkeep", "TorchServe"
START_LIMIT_S = 120.0
STOP_LIMIT_S = 60.0
POLL_S = 0.05
LOG_LINES_SHOWN = 30
# Whatever else is set here would be a configuration that only one of both reads.
PASSED_ON = ("PATH", "PYTHONPATH", "LD_LIBRARY_PATH", "JAVA_HOME")


class Server:
    """One product, serving one scenario; all its files are in one directory."""

    def __init__(self, product: Product, scenario: Scenario, home: Path, files: str) -> None:
        """`files` is the address at which archives can be downloaded."""
        self._files = files
        self.product = product
        self._scenario = scenario
        self._home = home
        ports = free_ports(5)
        self.inference, self.management, self.metrics = (
            f"http://127.0.0.1:{port}" for port in ports[:3]
        )
        addresses = {
            "inference_address": self.inference,
            "management_address": self.management,
            "metrics_address": self.metrics,
            "grpc_inference_port": str(ports[3]),
            "grpc_management_port": str(ports[4]),
        }
        if scenario.shares_port:
            self.management = addresses["management_address"] = self.inference
        config = addresses | scenario.config
        lines = [f"{key}={value}\n" for key, value in config.items()]
        (home / "config.properties").write_text("".join(lines))
        for name, content in scenario.files.items():
            (home / name).write_text(content)
        (home / "temp").mkdir()
        self._output = home / "output.log"
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def places(self) -> dict[str, str]:
        return {"files": self._files, "home": str(self._home)}

    @property
    def logs(self) -> Path:
        return self._home / "logs"

    @property
    def keys(self) -> dict[str, str]:
        """What is in the key file; nothing where no keys are asked for."""
        try:
            entries = json.loads((self._home / "key_file.json").read_text())
        except (FileNotFoundError, json.JSONDecodeError):  # TorchServe's is empty for a moment
            return {}
        return {kind: entry["key"] for kind, entry in entries.items()}

    def start(self, is_restart: bool = False) -> None:
        """Start it, and wait until it serves the models of its start."""
        scenario = self._scenario
        command = [str(self.product.torchserve), "--start", "--foreground"]
        command += ["--model-store", str(self._home / "store"), *scenario.args]
        if not is_restart:  # otherwise it would not look for its snapshot
            command += ["--ts-config", str(self._home / "config.properties")]
        if not scenario.has_snapshots:
            command.append("--ncs")
        if scenario.models:
            command += ["--models", *scenario.models]
        with self._output.open("wb") as output:
            self._process = subprocess.Popen(
                command,
                cwd=self._home,
                env=self._environment(),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self._wait_until_started()
        for name in scenario.model_names:
            self._wait_until_ready(name)

    def stop_in_order(self) -> None:
        """By SIGTERM, and wait until it has ended."""
        servers = [process for process in self._family() if self._is_server(process)]
        for process in servers:
            process.send_signal(signal.SIGTERM)
        _, alive = psutil.wait_procs(servers, timeout=STOP_LIMIT_S)
        if alive:
            raise ServerFailed(f"{self.product.name} does not end after SIGTERM")

    def stop(self) -> None:
        """End exactly this server and whatever it started."""
        family = self._family()
        if self._is_ours:
            with suppress(ServerFailed):
                self.stop_in_order()
        for member in reversed(family):
            with suppress(psutil.NoSuchProcess):
                member.kill()
        if self._process is not None:
            self._process.wait(timeout=STOP_LIMIT_S)
        _, alive = psutil.wait_procs(family, timeout=STOP_LIMIT_S)
        if alive:
            raise ServerFailed(f"{self.product.name} left {alive} running")

    @property
    def _is_ours(self) -> bool:
        return self.product.name == OURS

    def _is_server(self, process: psutil.Process) -> bool:
        """TorchServe's launcher is not the server: that is its one child, a Java program."""
        assert self._process is not None
        if self._is_ours:
            return process.pid == self._process.pid
        return process.ppid() == self._process.pid

    def _family(self) -> list[psutil.Process]:
        if self._process is None or self._process.poll() is not None:
            return []
        leader = psutil.Process(self._process.pid)
        return [leader, *leader.children(recursive=True)]

    def _environment(self) -> dict[str, str]:
        temp = str(self._home / "temp")
        passed_on = {name: os.environ[name] for name in PASSED_ON if name in os.environ}
        commands = self.product.torchserve.parent
        return {
            **passed_on,
            "PATH": f"{commands}{os.pathsep}{passed_on.get('PATH', os.defpath)}",
            "HOME": str(self._home),
            "SCENARIO_HOME": str(self._home),
            "TEMP": temp,
            "TMPDIR": temp,
            "LOG_LOCATION": str(self.logs),
            "METRICS_LOCATION": str(self.logs),
            "LANG": "C.UTF-8",
            **self._scenario.environment,
        }

    def _wait_until_started(self) -> None:
        self._wait(lambda: b"Model server started." in self._output.read_bytes(), "the start")

    def _wait_until_ready(self, model: str) -> None:
        def is_ready() -> bool:
            key = self.keys.get("management")
            headers = (("Authorization", f"Bearer {key}"),) if key else ()
            path = f"/models/{model}"
            with suppress(OSError):
                answer = raw_http.send(self.management, "GET", path, headers)
                workers = json.loads(answer.body)[0]["workers"] if answer.status == 200 else []
                return bool(workers) and all(one["status"] == "READY" for one in workers)
            return False

        self._wait(is_ready, f"a worker of {model}")

    def _wait(self, condition: Callable[[], bool], what: str) -> None:
        assert self._process is not None
        end = time.monotonic() + START_LIMIT_S
        while not condition():
            if self._process.poll() is not None or time.monotonic() > end:
                lines = self._output.read_text(errors="replace").splitlines()
                shown = "\n".join(lines[-LOG_LINES_SHOWN:])
                raise ServerFailed(f"{self.product.name} did not come to {what}:\n{shown}")
            time.sleep(POLL_S)


@contextmanager
def running(product: Product, scenario: Scenario, archives: dict[str, Path]) -> Iterator[Server]:
    """A server with a model store of its own, in which these archives are."""
    with TemporaryDirectory(prefix="conformance-") as directory, serving(Path(directory)) as files:
        home = Path(directory)
        for place, names in (("store", scenario.archives), ("elsewhere", scenario.elsewhere)):
            (home / place).mkdir()
            for name in names:
                copy(archives[name], home / place)
        server = Server(product, scenario, home, files)
        try:
            server.start()
            yield server
        finally:
            server.stop()


def restarted(server: Server) -> Server:
    """The same server, stopped and started again: its snapshot says where it listens."""
    server.stop_in_order()
    server.stop()
    server.start(is_restart=True)
    return server


def copy(archive: Path, store: Path) -> None:
    if archive.is_dir():
        shutil.copytree(archive, store / archive.name)
    else:
        shutil.copy(archive, store)
