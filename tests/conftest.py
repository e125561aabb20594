"""What the tests share: free ports, real servers, and the promise that nothing is left over."""

import contextlib
import fcntl
import http.client
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import hypothesis
import psutil
import pytest

# On a busy machine inputs are slow to make, too, and that says nothing about what is tested.
hypothesis.settings.register_profile(
    "busy", suppress_health_check=[hypothesis.HealthCheck.too_slow], deadline=None
)
hypothesis.settings.load_profile("busy")

# `bench` and `conformance` are programs beside the package: only tests import them. Last, so
# that no other name changes its meaning by it.
ROOT = str(Path(__file__).resolve().parent.parent)
if ROOT not in sys.path:
    sys.path.append(ROOT)

START_DEADLINE_S = 60.0
STOP_DEADLINE_S = 30.0
LEFT_DEADLINE_S = 5.0


def pytest_configure(config: pytest.Config) -> None:
    """Give this run a place of its own for temporary files, so that it sees what is left there.

    pytest keeps what `tmp_path` is for elsewhere, to be looked at.
    """
    before = {name: os.environ.get(name) for name in ("PYTEST_DEBUG_TEMPROOT", "TMPDIR")}
    os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", tempfile.gettempdir())
    place = tempfile.mkdtemp(prefix="torchkeep-tests-")
    os.chmod(place, 0o1777)  # as /tmp is: some tests are other users
    os.environ["TMPDIR"] = tempfile.tempdir = place

    def restore() -> None:
        tempfile.tempdir = None
        for name, value in before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value
        shutil.rmtree(place, ignore_errors=True)

    config.add_cleanup(restore)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if find_spec("torch") is None:
        for item in items:
            if item.get_closest_marker("torch"):
                item.add_marker(pytest.mark.skip(reason="torch is not installed"))


def poll(condition: Callable[[], Any], what: str, deadline_s: float = START_DEADLINE_S) -> Any:
    """Call `condition` until it returns something true; fails the test after the deadline."""
    end = time.monotonic() + deadline_s
    while time.monotonic() < end:
        if result := condition():
            return result
        time.sleep(0.02)
    pytest.fail(f"not within {deadline_s} s: {what}")


@pytest.fixture(autouse=True)
def nothing_left() -> Iterator[None]:
    """What a test started has ended, and nothing that it made is there any more, when it ends.

    Processes (and all of them were waited for), sockets of this process, temporary files, and
    memory that has a name.
    """
    processes = psutil.Process().children(recursive=True)
    sockets, files, memory = _own_sockets(), _temporary_files(), _shared_memory()
    yield
    end = time.monotonic() + LEFT_DEADLINE_S
    while left := [
        *_children_but(processes),
        *_own_sockets() - sockets,
        *_temporary_files() - files,
        *_shared_memory() - memory,
    ]:
        if time.monotonic() > end:
            for one in left:
                if isinstance(one, psutil.Process):
                    one.kill()
            pytest.fail(f"left by the test: {left}")
        time.sleep(0.02)


def _children_but(known: Sequence[psutil.Process]) -> set[psutil.Process]:
    children = set(psutil.Process().children(recursive=True)) - set(known)
    # The test process is a subreaper (as the server is): orphans come to it.
    for orphan in children:
        with contextlib.suppress(ChildProcessError):
            os.waitid(os.P_PID, orphan.pid, os.WEXITED | os.WNOHANG)
    return children


def _own_sockets() -> set[str]:
    """By the numbers that the kernel gives them."""
    found = set()
    for descriptor in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            found.add(os.readlink(f"/proc/self/fd/{descriptor}"))
    return {target for target in found if target.startswith("socket:")}


def _temporary_files() -> set[str]:
    # torch makes a directory when it is imported, and removes it at the end of the process. Its
    # compilers have one for each user, which stays for the next compilation.
    torch = sys.modules.get("torch.distributed.nn.jit.instantiator")
    of_torch = {os.path.basename(torch._TEMP_DIR.name)} if torch is not None else set()
    found = set(os.listdir(tempfile.gettempdir())) - of_torch
    return {name for name in found if not name.startswith("torchinductor_")}


def _shared_memory() -> set[str]:
    """What lies in /dev/shm of processes that have ended: other runs are at work there, too."""
    area = f"torchkeep-{os.geteuid()}"  # which may stay, empty
    found = set()
    for name in set(os.listdir("/dev/shm")) - {area}:
        number = re.search(r"[_-]([0-9]+)(?![0-9])", name)
        if number is not None and not psutil.pid_exists(int(number[1])):
            found.add(name)
    return found | _unused_unpack_dirs(Path("/dev/shm") / area / "models")


def _unused_unpack_dirs(models: Path) -> set[str]:
    """See `UnpackArea`: a server holds the lock of each directory that it uses."""
    found = set()
    for path in models.glob(".*.lock"):
        with contextlib.suppress(FileNotFoundError), path.open("rb") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                continue
            found.add(str(path))
    return found


@pytest.fixture(name="poll")
def poll_fixture() -> Callable[..., Any]:
    return poll


def free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for sock in sockets:
            sock.bind(("127.0.0.1", 0))
        return [sock.getsockname()[1] for sock in sockets]


@pytest.fixture(scope="session")
def free_port() -> Callable[[], int]:
    return lambda: free_ports(1)[0]


@pytest.fixture
def memory() -> Iterator[Path]:
    """A directory in memory; at the end nothing but the empty area may be left in it."""
    root = Path("/dev/shm") / f"torchkeep-test-{os.getpid()}"
    root.mkdir()
    yield root
    left = [path for path in root.rglob("*") if path.name != "models"]
    for path in (root / "models", root):
        if path.exists() and not left:
            path.rmdir()
    assert left == []


class Server:
    """A real server process on ports of its own; everything it writes is under `workdir`."""

    def __init__(
        self,
        workdir: Path,
        store: Path,
        models: list[str],
        config: dict[str, str],
        args: list[str],
        env: dict[str, str],
        launcher: Sequence[str] = (),
        snapshots: bool = False,
        restart: "Server | None" = None,
        asks_for_keys: bool = False,
        inference_scheme: str = "http",
        files: dict[str, str] | None = None,
    ) -> None:
        """`restart` is one that has ended: this one has its addresses, from its snapshot.

        `files` are written into the working directory.
        """
        self.workdir = workdir
        self.temp = workdir / "tmp"
        self.temp.mkdir(parents=True, exist_ok=True)
        ports = free_ports(3)
        self.inference, self.management, self.metrics = (
            f"http://127.0.0.1:{port}" for port in ports
        )
        self.inference = f"{inference_scheme}://127.0.0.1:{ports[0]}"
        addresses = zip(
            ("inference_address", "management_address", "metrics_address"),
            (self.inference, self.management, self.metrics),
            strict=True,
        )
        lines = {**dict(addresses), "enable_model_api": "true", **config}
        properties = workdir / "config.properties"
        properties.write_text("".join(f"{key}={value}\n" for key, value in lines.items()))
        for name, content in (files or {}).items():
            (workdir / name).write_text(content)
        self.log_file = workdir / "server.log"
        command = [
            *launcher,
            sys.executable,
            "-P",
            "-m",
            "torchkeep.runtime",
            "--start",
            "--foreground",
        ]
        command += ["--model-store", str(store)]
        command += args if asks_for_keys else ["--disable-token-auth", *args]
        if restart is None:
            command += ["--ts-config", str(properties)]
        else:
            self.inference, self.management = restart.inference, restart.management
            self.metrics = restart.metrics
        if not snapshots:
            command += ["--ncs"]
        if models:
            command += ["--models", *models]
        with self.log_file.open("wb") as log:
            self.process = subprocess.Popen(
                command,
                cwd=workdir,
                env={
                    **os.environ,
                    "TEMP": str(self.temp),
                    "TMPDIR": str(self.temp),
                    "SCENARIO_HOME": str(workdir),
                    **env,
                },
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self.pid = self.process.pid
        self.stop_deadline_s = STOP_DEADLINE_S

    def log_text(self) -> str:
        return self.log_file.read_text(errors="replace")

    def wait_for_lines(self, *texts: str) -> str:
        """The log, once it holds all of these: a line is written after what it tells of."""
        for text in texts:
            poll(lambda text=text: text in self.log_text(), f"{text!r} in the log")
        return self.log_text()

    def wait_until_started(self) -> None:
        def started() -> bool:
            if self.process.poll() is not None:
                pytest.fail(f"the server ended: {self.process.returncode}\n{self.log_text()}")
            return "Model server started." in self.log_text()

        poll(started, "server start")

    def wait_until_ready(self, *models: str) -> None:
        """Until every worker of these models is READY."""
        for model in models:
            poll(lambda model=model: self._ready(model), f"{model} ready\n{self.log_text()}")

    def _ready(self, model: str) -> bool:
        key = self.keys.get("management")
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        status, _, body = self.request("GET", f"/models/{model}", None, headers, "management")
        workers = json.loads(body)[0]["workers"] if status == 200 else []
        return bool(workers) and all(worker["status"] == "READY" for worker in workers)

    @property
    def keys(self) -> dict[str, str]:
        """The keys it asks for now, by what they are for; none where it asks for none."""
        try:
            entries = json.loads((self.workdir / "key_file.json").read_text())
        except FileNotFoundError:
            return {}
        return {kind: entry["key"] for kind, entry in entries.items()}

    def workers(self, model: str) -> list[dict[str, Any]]:
        _, _, body = self.request("GET", f"/models/{model}", port="management")
        workers: list[dict[str, Any]] = json.loads(body)[0]["workers"]
        return workers

    def request(
        self,
        method: str,
        path: str,
        body: bytes | str | None = None,
        headers: dict[str, str] | None = None,
        port: str = "inference",
        timeout_s: float = 60,
    ) -> tuple[int, http.client.HTTPMessage, bytes]:
        """One request on a connection of its own."""
        address = getattr(self, port).removeprefix("http://")
        connection = http.client.HTTPConnection(address, timeout=timeout_s)
        try:
            connection.request(method, path, body, headers or {})
            response = connection.getresponse()
            return response.status, response.headers, response.read()
        finally:
            connection.close()

    def descendants(self) -> list[psutil.Process]:
        try:
            return psutil.Process(self.pid).children(recursive=True)
        except psutil.NoSuchProcess:
            return []

    def stop(self) -> int:
        """SIGTERM, and the exit status; kills, by id, whatever is left after the deadline."""
        family = self.descendants()
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(self.stop_deadline_s)
        finally:
            if self.process.poll() is None:
                self.process.kill()
                self.process.wait()
            for process in family:
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.kill()


@pytest.fixture
def server_factory(tmp_path: Path) -> Iterator[Callable[..., Server]]:
    """Starts servers; at the end they stop, and must leave no process and no file."""
    with _servers(tmp_path) as start:
        yield start


@pytest.fixture(scope="module")
def shared_server_factory(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """The same, for servers that all tests of a module ask."""
    with _servers(tmp_path_factory.mktemp("servers")) as start:
        yield start


@contextlib.contextmanager
def _servers(root: Path) -> Iterator[Callable[..., Server]]:
    servers: list[Server] = []

    def start(
        models: list[str] | None = None,
        store: Path | None = None,
        config: dict[str, str] | None = None,
        args: list[str] | None = None,
        env: dict[str, str] | None = None,
        home: Path | None = None,
        launcher: Sequence[str] = (),
        snapshots: bool = False,
        restart: Server | None = None,
        is_expected_to_start: bool = True,
        asks_for_keys: bool = False,
        inference_scheme: str = "http",
        files: dict[str, str] | None = None,
    ) -> Server:
        workdir = (home or root) / f"server{len(servers)}"
        workdir.mkdir()
        server = Server(
            workdir,
            store or root,
            models or [],
            config or {},
            args or [],
            env or {},
            launcher,
            snapshots,
            restart,
            asks_for_keys,
            inference_scheme,
            files,
        )
        servers.append(server)
        if is_expected_to_start:
            server.wait_until_started()
        return server

    yield start
    leftovers: list[str] = []
    for server in servers:
        family = server.descendants()
        server.stop()
        _, alive = psutil.wait_procs(family, timeout=5)
        leftovers += [str(process) for process in alive]
        leftovers += [str(path) for path in server.temp.rglob("*") if not path.is_dir()]
    assert leftovers == []
