"""Models of one server do not meet, and a handler that does harm harms only itself.

Beside each of them another model answers throughout, correctly and in time.
"""

import http.client
import json
import re
import statistics
import threading
import time
import zipfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest

HARMS = (Path(__file__).parent.parent / "handlers" / "isolation" / "harms.py").read_text()
NEIGHBOUR = """
def handle(data, context):
    if data is not None:
        return [bytes(row["body"])[::-1] for row in data]
"""
# A module of each kind; both archives have them under the same names.
NAMESAKES = {
    "handler.py": """
import utils, tools.words
from tools import numbers
TURN = 0
def handle(data, context):
    global TURN
    if data is None:
        return None
    TURN += 1
    return [" ".join((utils.WORD, tools.words.WORD, numbers.WORD, __name__, str(TURN)))]
""",
    "utils.py": "WORD = '{word}'\n",
    "tools/__init__.py": "",
    "tools/words.py": "from utils import WORD as OTHER\nWORD = OTHER + '-tools'\n",
    "tools/numbers.py": "WORD = '{word}-numbers'\n",
}
# Its model stage has loaded this, and its workers are forks of that.
SPOILT_STAGE = """
import socket, msgpack
def broken(*_, **__):
    raise RuntimeError("patched")
socket.setdefaulttimeout(0.001)
for name in ("packb", "unpackb", "Packer"):
    setattr(msgpack, name, broken)
class Handler:
    def initialize(self, context): ...
    def handle(self, data, context):
        return [bytes(row["body"]) for row in data]
"""
WORKERS_AT_ONCE = 6
DEADLINE_S = 60.0  # on a busy machine
LATE_S = 10.0

# What becomes of a request that does harm.
ANSWERS = (200, "goes on")
FAILS = (503, "goes on")
NO_MEMORY = (507, "goes on")
DIES = (500, "is replaced")
KILLED = (507, "is replaced")  # TorchServe takes SIGKILL for a lack of memory
# Later requests of this worker may fail, too: they need what the handler has broken.
SPOILS = (None, "may be broken")

OUTCOMES: dict[str, tuple[int | None, str]] = {
    "fine": ANSWERS,
    "prints_lines": ANSWERS,
    "prints_short_lines": ANSWERS,
    "prints_one_line 20": ANSWERS,
    "prints_without_end_of_line": ANSWERS,
    "prints_garbage": ANSWERS,
    "prints_surrogates": ANSWERS,
    "closes_output": ANSWERS,
    "closes_output_and_raises": FAILS,
    "closes_streams_and_raises": FAILS,
    "has_no_streams": ANSWERS,
    "replaces_streams": FAILS,
    "leaks_descriptors": ANSWERS,
    "leaks_descriptors_and_raises": FAILS,
    "starts_threads": ANSWERS,
    "exits_in_a_thread": ANSWERS,
    "forks": ANSWERS,
    "forks_twice": ANSWERS,
    "forks_and_both_answer": ANSWERS,
    "forks_and_the_child_raises": ANSWERS,
    "forks_much": ANSWERS,
    "forks_for_ever": ANSWERS,
    "forks_and_looks": ANSWERS,
    "starts_and_looks": ANSWERS,
    "starts_programs": ANSWERS,
    "uses_multiprocessing": ANSWERS,
    "catches_everything": ANSWERS,
    "changes_its_surroundings": ANSWERS,
    "changes_modules": SPOILS,
    "forgets_modules": SPOILS,
    "has_little_recursion": SPOILS,
    "is_never_done_when_it_ends": ANSWERS,
    "raises_at_signals": SPOILS,
    "allocates_without_end": NO_MEMORY,
    "allocates_and_catches": ANSWERS,
    "closes_all_descriptors": DIES,
    "closes_and_opens_others": DIES,
    "exits_at_once": DIES,
    "exits": DIES,
    "is_killed": KILLED,
    "crashes": DIES,
}
FOUND = {"forks_and_looks": [], "starts_and_looks": [], "uses_multiprocessing": [1, 2, 3]}
LINE = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d,\d{3} \[(INFO |WARN |ERROR|DEBUG)\] \S+ \S+ - ")


def write_model(store: Path, name: str, files: dict[str, str], config: str = "") -> None:
    model = {"modelName": name, "modelVersion": "1.0", "handler": "handler.py"}
    if config:
        model["configFile"] = "model-config.yaml"
        files = {**files, "model-config.yaml": config}
    with zipfile.ZipFile(store / f"{name}.mar", "w") as archive:
        for path, text in files.items():
            archive.writestr(path, text)
        archive.writestr("MAR-INF/MANIFEST.json", json.dumps({"model": model}))


class Neighbour(threading.Thread):
    """Asks a model one thing after another, on one connection; `with` is while it does."""

    def __init__(self, server: Any) -> None:
        super().__init__(name="neighbour")
        self._address = server.inference.removeprefix("http://")
        self._is_over = threading.Event()
        self.latencies_s: list[float] = []
        self.wrong: list[Any] = []

    def run(self) -> None:
        connection = http.client.HTTPConnection(self._address, timeout=DEADLINE_S)
        try:
            while not self._is_over.wait(0.002):
                body = b"request %d" % len(self.latencies_s)
                began = time.monotonic()
                connection.request("POST", "/predictions/neighbour", body)
                response = connection.getresponse()
                answer = (response.status, response.read())
                self.latencies_s.append(time.monotonic() - began)
                if answer != (200, body[::-1]):
                    self.wrong.append(answer)
        except (OSError, http.client.HTTPException) as error:
            self.wrong.append(error)
        finally:
            connection.close()

    def __enter__(self) -> "Neighbour":
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_over.set()
        self.join()

    def check(self) -> None:
        assert self.wrong == []
        assert self.latencies_s
        assert max(self.latencies_s) < LATE_S


@dataclass
class Told:
    """What one harmful request came to."""

    status: int
    body: bytes
    before: int  # process ids of the worker
    after: int | None
    unregistered: int
    unregister_s: float


@dataclass
class Server:
    """The server of most of these tests, after all harm was done."""

    server: Any
    store: Path
    told: dict[str, Told]
    neighbour: Neighbour
    growth_bytes: int
    before: tuple[int, int]
    log: str

    def __getattr__(self, name: str) -> Any:
        return getattr(self.server, name)


def register(server: Any, url: str, name: str) -> None:
    path = f"/models?url={url}.mar&model_name={name}&initial_workers=1&synchronous=true"
    status, _, body = server.request("POST", path, port="management", timeout_s=DEADLINE_S)
    assert status == 200, (name, body)


def unregister(server: Any, name: str) -> int:
    path = f"/models/{name}"
    status: int = server.request("DELETE", path, port="management", timeout_s=DEADLINE_S)[0]
    return status


def ask(server: Any, name: str, way: str = "fine") -> tuple[int, bytes]:
    path = f"/predictions/{name}"
    status, _, body = server.request("POST", path, way.encode(), timeout_s=DEADLINE_S)
    return status, body


def wait_for_worker(server: Any, name: str) -> int | None:
    """The process id of a worker that answers; None if none does."""
    end = time.monotonic() + DEADLINE_S
    while time.monotonic() < end:
        status, body = ask(server, name)
        if status == 200:
            return int(json.loads(body)["pid"])
        time.sleep(0.1)
    return None


def do_harm(server: Any, way: str) -> Told:
    """Register a model for it, ask it for the harm, ask again, unregister it."""
    name = way.split()[0]
    register(server, "harms", name)
    before = wait_for_worker(server, name)
    assert before is not None
    status, body = ask(server, name, way)
    is_spoilt = OUTCOMES.get(way) == SPOILS
    after = ask(server, name)[0] if is_spoilt else wait_for_worker(server, name)
    began = time.monotonic()
    return Told(status, body, before, after, unregister(server, name), time.monotonic() - began)


def ask_once(server: Any, way: str) -> tuple[int, bytes]:
    """Of a model that is there for this request."""
    name = way.split()[0]
    register(server, "harms", name)
    path = f"/predictions/{name}"
    status, _, body = server.request("POST", path, way.encode(), timeout_s=10 * DEADLINE_S)
    assert unregister(server, name) == 200
    return status, body


def footprint(server: Any) -> tuple[int, int]:
    """Processes and files of a server."""
    files = sum(not path.is_dir() for path in server.temp.rglob("*"))
    return len(server.descendants()), files


@pytest.fixture(scope="module")
def shared(
    shared_server_factory: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory
) -> Server:
    store = tmp_path_factory.mktemp("store")
    write_model(store, "neighbour", {"handler.py": NEIGHBOUR}, "minWorkers: 1\nmaxWorkers: 1\n")
    write_model(store, "harms", {"handler.py": HARMS}, "responseTimeout: 600\n")
    write_model(store, "async", {"handler.py": HARMS}, "asyncCommunication: true\n")
    for word in ("one", "two"):
        files = {path: text.replace("{word}", word) for path, text in NAMESAKES.items()}
        write_model(store, word, files)
    server = shared_server_factory(["neighbour.mar"], store)
    server.wait_until_ready("neighbour")
    start = len(server.wait_for_lines("neighbour 1.0: 1 of 1 workers ready"))
    before, size = footprint(server), psutil.Process(server.pid).memory_info().rss
    with Neighbour(server) as neighbour, ThreadPoolExecutor(WORKERS_AT_ONCE) as pool:
        outcomes = pool.map(lambda way: do_harm(server, way), OUTCOMES)
        told = dict(zip(OUTCOMES, outcomes, strict=True))
    growth_bytes = psutil.Process(server.pid).memory_info().rss - size
    log = server.log_text()[start:]
    return Server(server, store, told, neighbour, growth_bytes, before, log)


def test_every_kind_of_harm_is_tried() -> None:
    ways = {way.split()[0] for way in OUTCOMES}
    helpers = {"write_all", "limit_memory", "open_descriptors", "len_of_stack", "handle"}
    assert ways == set(re.findall(r"^def (\w+)", HARMS, re.MULTILINE)) - helpers


@pytest.mark.parametrize("way", OUTCOMES)
def test_a_harmful_request_harms_only_its_own_worker(way: str, shared: Server) -> None:
    told = shared.told[way]
    status, what = OUTCOMES[way]
    assert status in (None, told.status), told
    if what == "goes on":
        assert told.after == told.before
    elif what == "is replaced":
        assert told.after not in (None, told.before)
    if told.status == 200:
        answer = json.loads(told.body)
        assert answer["pid"] == told.before  # not a fork of it
        assert answer["found"] == FOUND.get(way)


@pytest.mark.parametrize("way", OUTCOMES)
def test_a_harmful_model_is_unregistered_in_time(way: str, shared: Server) -> None:
    assert shared.told[way].unregistered == 200
    assert shared.told[way].unregister_s < LATE_S


def test_the_neighbour_answers_throughout(shared: Server) -> None:
    shared.neighbour.check()


def test_no_process_and_no_file_of_a_harmful_model_is_left(
    shared: Server, poll: Callable[..., Any]
) -> None:
    poll(lambda: footprint(shared) == shared.before, "nothing is left", DEADLINE_S)


def test_the_frontend_keeps_nothing_of_what_was_printed(shared: Server) -> None:
    assert shared.growth_bytes < 64 << 20


def test_what_is_printed_cannot_spoil_the_log(shared: Server) -> None:
    lines = shared.log.split("\n")[1:-1]
    assert len(lines) > 1000
    assert [line[:200] for line in lines if not LINE.match(line) or line.startswith("2030")] == []
    assert re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]", shared.log) is None
    assert max(map(len, lines)) < 50_000


def test_a_flood_of_output_does_not_delay_the_neighbour(
    shared: Server, poll: Callable[..., Any]
) -> None:
    register(shared, "harms", "flood")
    with Neighbour(shared) as quiet:
        poll(lambda: len(quiet.latencies_s) >= 50, "the usual latency is known")
    with Neighbour(shared) as flooded:
        assert ask(shared, "flood", "prints_short_lines 4")[0] == 200
    assert unregister(shared, "flood") == 200
    flooded.check()
    usual_s = statistics.median(quiet.latencies_s)
    # It was 400 ms, with 5 ms as usual, when the flood was read as fast as it came.
    assert statistics.median(flooded.latencies_s) < 10 * usual_s + 0.05


@pytest.mark.long
@pytest.mark.timeout(600)
def test_tens_of_megabytes_of_output_are_nobodys_affair(shared: Server) -> None:
    size = psutil.Process(shared.pid).memory_info().rss
    ways = ("prints_one_line 500", "prints_garbage 100", "prints_lines 50")
    with Neighbour(shared) as neighbour, ThreadPoolExecutor() as pool:
        for status, _ in pool.map(lambda way: ask_once(shared, way), ways):
            assert status == 200
    neighbour.check()
    assert psutil.Process(shared.pid).memory_info().rss - size < 64 << 20


def test_a_fork_of_a_concurrent_worker_does_not_answer(shared: Server) -> None:
    register(shared, "async", "async")
    worker = wait_for_worker(shared, "async")
    for way in 3 * ("forks_and_both_answer", "forks_and_the_child_raises", "fine"):
        status, body = ask(shared, "async", way)
        assert (status, json.loads(body)) == (200, {"pid": worker, "found": None})
    assert unregister(shared, "async") == 200


def test_models_with_modules_of_the_same_names_do_not_meet(shared: Server) -> None:
    for word in ("one", "two"):
        register(shared, word, word)
    for turn in range(1, 6):
        for word in ("one", "two"):
            expected = f"{word} {word}-tools {word}-numbers handler {turn}"
            assert ask(shared, word) == (200, expected.encode())
    for word in ("one", "two"):
        assert unregister(shared, word) == 200


def test_a_stage_that_its_model_has_spoilt_still_forks_workers(shared: Server) -> None:
    write_model(shared.store, "spoilt", {"handler.py": SPOILT_STAGE}, "shared_weights: true\n")
    register(shared, "spoilt", "spoilt")
    assert ask(shared, "spoilt", "still here") == (200, b"still here")
    assert unregister(shared, "spoilt") == 200
    assert "weights" not in shared.log_text()


def test_the_server_stops_with_harmful_models_in_place(
    server_factory: Callable[..., Any], tmp_path: Path
) -> None:
    write_model(tmp_path, "harms", {"handler.py": HARMS})
    server = server_factory([], tmp_path)
    ways = ("catches_everything", "forks_twice", "forks_for_ever", "starts_programs")

    def begin(way: str) -> int:
        register(server, "harms", way)
        return ask(server, way, way)[0]

    with ThreadPoolExecutor() as pool:
        for status in pool.map(begin, (*ways, "starts_threads", "is_never_done_when_it_ends")):
            assert status == 200
    family = server.descendants()
    assert len(family) > 10
    began = time.monotonic()
    assert server.stop() == 0
    assert time.monotonic() - began < LATE_S
    assert psutil.wait_procs(family, timeout=5)[1] == []
