"""A whole server with sealed archives: it answers, and nowhere is a trace of what they hold."""

import contextlib
import io
import json
import os
import re
import secrets
import signal
import stat
import zipfile
from collections.abc import Callable, Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from sealing import KEK, KEY_ID, jwe_bytes, mar_bytes, write_sealed
from serving import serving

from torchkeep.modelstore.memory_place import SHARED_MEMORY

HANDLER = """
import os
SECRET = {marker!r}
def handle(data, context):
    if data is not None:
        with open("weights.bin", "rb") as file:
            return [f"{{len(file.read())}} {{os.getcwd()}}"] * len(data)
"""
WEIGHTS_BYTES = 3 << 20


class Ground:
    """What a test has: a marker in every file of its model, places, and the search for it."""

    def __init__(self, tmp_path: Path, memory: Path) -> None:
        self.marker = secrets.token_hex(16).encode()
        self.tmp_path = tmp_path
        self.memory = memory
        self.store = tmp_path / "store"
        self.store.mkdir()
        self.elsewhere = tmp_path / "elsewhere"
        self.elsewhere.mkdir()
        key = tmp_path / "key"
        key.write_bytes(KEK)
        self.config = {"key_source": f"file:{key}", "unpack_directory": str(memory)}

    def archive(self) -> bytes:
        """Not compressed: in a compressed archive on a disk the marker could not be seen."""
        padding = secrets.token_bytes(WEIGHTS_BYTES - len(self.marker))
        files = {
            "h.py": HANDLER.format(marker=self.marker.decode()),
            "weights.bin": padding + self.marker,
        }
        return mar_bytes("m", files=files, compression=zipfile.ZIP_STORED)

    def marked_files(self) -> list[Path]:
        """Every file that a server of ours may have written and that holds the marker."""
        roots = [self.tmp_path, self.memory, *SHARED_MEMORY.glob(f"torchkeep-{os.geteuid()}")]
        paths = [path for root in roots for path in root.rglob("*")]
        return [path for path in paths if self._is_marked(path)]

    def marked_descriptors(self, server: Any) -> list[str]:
        """Open files of the server and its children outside memory, deleted ones as well."""
        found = []
        for pid in (server.pid, *(process.pid for process in server.descendants())):
            for path in Path(f"/proc/{pid}/fd").glob("*"):
                with contextlib.suppress(FileNotFoundError):  # closed meanwhile
                    target = os.readlink(path)
                    in_memory = target.startswith((str(self.memory), "/memfd:"))
                    if not in_memory and self._is_marked(path):
                        found.append(f"{pid}: {target}")
        return found

    def _is_marked(self, path: Path) -> bool:
        try:
            return stat.S_ISREG(path.stat().st_mode) and self.marker in path.read_bytes()
        except FileNotFoundError:
            return False

    def check_serving(self, server: Any) -> None:
        """It answers, the search finds the marker in memory, and nowhere else."""
        server.wait_until_ready("m")
        status, _, body = server.request("POST", "/predictions/m", b"x")
        assert status == 200, body
        length, directory = body.decode().split()
        assert int(length) == WEIGHTS_BYTES
        assert Path(directory).parent == self.memory / "models"
        marked = self.marked_files()
        assert {path.name for path in marked} >= {"h.py", "weights.bin"}
        assert all(path.is_relative_to(self.memory) for path in marked), marked
        assert self.marked_descriptors(server) == []


@pytest.fixture
def ground(tmp_path: Path, memory: Path) -> Ground:
    return Ground(tmp_path, memory)


@pytest.fixture
def web(ground: Ground) -> Iterator[str]:
    """A web server with the files of `elsewhere`."""

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

    handler = partial(Quiet, directory=str(ground.elsewhere))
    with serving(ThreadingHTTPServer(("127.0.0.1", 0), handler)) as server:
        yield f"http://127.0.0.1:{server.server_port}"


def kill(server: Any) -> None:
    os.kill(server.pid, signal.SIGKILL)
    server.process.wait()
    (server.temp / ".model_server.pid").unlink()


def register(server: Any, url: str) -> tuple[int, dict[str, Any]]:
    target = f"/models?url={quote(url, safe='')}&initial_workers=1&synchronous=true"
    status, _, body = server.request("POST", target, port="management")
    return status, json.loads(body)


@pytest.mark.parametrize("models", [["m.mar.sealed"], ["m=m.mar.sealed"], ["all"]])
def test_a_sealed_archive_is_served_from_the_start_and_unregistered_without_trace(
    models: list[str], ground: Ground, server_factory: Callable[..., Any]
) -> None:
    write_sealed(ground.store / "m.mar.sealed", ground.archive())
    server = server_factory(models, ground.store, ground.config)
    ground.check_serving(server)
    status, _, _ = server.request("DELETE", "/models/m", port="management")
    assert status == 200
    assert ground.marked_files() == []
    assert ground.marked_descriptors(server) == []


@pytest.mark.parametrize("form", ["store", "file", "http", "jwe"])
def test_a_sealed_archive_is_registered_from_anywhere(
    form: str, ground: Ground, web: str, server_factory: Callable[..., Any]
) -> None:
    name = "m.mar"
    place = ground.store if form in ("store", "jwe") else ground.elsewhere
    if form == "jwe":
        (place / name).write_bytes(jwe_bytes(ground.archive(), kid=KEY_ID))
    else:
        write_sealed(place / name, ground.archive())
    server = server_factory([], ground.store, ground.config)
    url = {"file": f"file://{place / name}", "http": f"{web}/{name}"}.get(form, name)
    status, answer = register(server, url)
    assert status == 200, answer
    ground.check_serving(server)
    server.request("DELETE", "/models/m", port="management")
    assert ground.marked_files() == []


def test_stop_leaves_no_trace(ground: Ground, server_factory: Callable[..., Any]) -> None:
    write_sealed(ground.store / "m.mar", ground.archive())
    server = server_factory(["m.mar"], ground.store, ground.config)
    ground.check_serving(server)
    assert server.stop() == 0
    assert ground.marked_files() == []
    assert list(ground.memory.glob("models/*")) == []


@pytest.mark.parametrize("loses_worker", [False, True])
def test_a_killed_server_leaves_no_trace(
    loses_worker: bool,
    ground: Ground,
    server_factory: Callable[..., Any],
    poll: Callable[..., Any],
) -> None:
    write_sealed(ground.store / "m.mar", ground.archive())
    server = server_factory(["m.mar"], ground.store, ground.config)
    ground.check_serving(server)
    if loses_worker:
        # What the worker may have left behind is ended with it, and nothing else.
        os.kill(server.workers("m")[0]["pid"], signal.SIGKILL)
        server.wait_for_lines("Retry worker")
        ground.check_serving(server)
    kill(server)
    poll(lambda: list(ground.memory.glob("models/.*")) == [], "memory is cleared")
    assert ground.marked_files() == []


def test_the_next_start_clears_what_a_server_and_its_janitor_left(
    ground: Ground, server_factory: Callable[..., Any]
) -> None:
    write_sealed(ground.store / "m.mar", ground.archive())
    server = server_factory(["m.mar"], ground.store, ground.config)
    ground.check_serving(server)
    janitor = next(p for p in server.descendants() if "torchkeep.modelstore" in str(p.cmdline()))
    janitor.kill()
    kill(server)
    assert ground.marked_files() != []
    server_factory([], ground.store, ground.config)
    assert ground.marked_files() == []


def test_without_a_place_configured_it_is_shared_memory(
    ground: Ground, server_factory: Callable[..., Any]
) -> None:
    del ground.config["unpack_directory"]
    ground.memory = SHARED_MEMORY / f"torchkeep-{os.geteuid()}"
    write_sealed(ground.store / "m.mar", ground.archive())
    server = server_factory(["m.mar"], ground.store, ground.config)
    ground.check_serving(server)
    server.stop()
    assert ground.marked_files() == []


def test_what_is_refused_is_told_in_one_line_and_leaves_nothing(
    ground: Ground, server_factory: Callable[..., Any]
) -> None:
    sealed = write_sealed(ground.store / "good.mar", ground.archive()).read_bytes()
    (ground.store / "flipped.mar").write_bytes(sealed[:-9] + b"\0" * 9)
    (ground.store / "cut.mar").write_bytes(sealed[:-9])
    (ground.store / "plain.mar").write_bytes(mar_bytes("m"))
    config = {**ground.config, "require_sealed_models": "true"}
    server = server_factory([], ground.store, config)
    expected = {
        "flipped.mar": "flipped.mar: chunk 3 of 4 was changed, moved or comes from another",
        "cut.mar": "cut.mar: it was cut off: ",
        "plain.mar": "plain.mar is not sealed, and require_sealed_models=true.",
    }
    for name, text in expected.items():
        status, answer = register(server, name)
        assert (status, answer["type"]) == (400, "InvalidModelException")
        assert answer["message"].startswith(text)
        assert "\n" not in answer["message"]
    assert ground.marked_files() == []
    assert "Traceback" not in server.log_text()
    status, answer = register(server, "good.mar")
    assert status == 200, answer


def test_on_a_disk_nothing_is_unpacked(ground: Ground, server_factory: Callable[..., Any]) -> None:
    write_sealed(ground.store / "m.mar", ground.archive())
    config = {**ground.config, "unpack_directory": str(ground.elsewhere)}
    server = server_factory(["m.mar"], ground.store, config)
    text = "is not in memory (tmpfs), and a sealed archive is not unpacked on a disk"
    server.wait_for_lines(text)
    status, answer = register(server, "m.mar")
    assert status == 507
    assert text in answer["message"]
    assert ground.marked_files() == []


def test_a_trusted_model_that_cannot_be_read_stops_the_start(
    ground: Ground, server_factory: Callable[..., Any]
) -> None:
    config = {**ground.config, "trusted_models": '{"m": {"1.0": "anything"}}'}
    with pytest.raises(pytest.fail.Exception, match="the server ended"):
        server_factory([], ground.store, config)
    log = next(ground.tmp_path.rglob("server.log")).read_text()
    assert "Invalid configuration: trusted_models: m 1.0: 'anything' is not sha256:<dig" in log
    assert "Traceback" not in log


def test_the_log_quotes_nothing_of_a_sealed_archive(
    ground: Ground, server_factory: Callable[..., Any]
) -> None:
    marker = ground.marker.decode()
    manifest = {"model": {"modelName": "m", "handler": "h.py", "configFile": "c.yaml"}}
    files = {
        "MAR-INF/MANIFEST.json": json.dumps(manifest),
        "h.py": HANDLER.format(marker=marker),
        "weights.bin": "",
        "c.yaml": f"minWorkers: {marker}\nbatchSize: {marker}\n",
    }
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    write_sealed(ground.store / "m.mar", buffer.getvalue())
    server = server_factory(["m.mar"], ground.store, ground.config)
    server.wait_until_ready("m")
    log = server.wait_for_lines("model m: 2 settings of its configuration file are ignored")
    assert marker not in log


def test_a_server_with_keys_dumps_no_core_even_without_a_sandbox(
    ground: Ground, server_factory: Callable[..., Any]
) -> None:
    server = server_factory([], ground.store, {**ground.config, "sandbox": "off"})
    limits = Path(f"/proc/{server.pid}/limits").read_text()
    assert re.search(r"^Max core file size +0 +0 ", limits, re.MULTILINE)
