"""A hostile handler in a real server, as root and as a plain user: the matrix of the documents.

Each attempt of tests/handlers/captive.py stands in a row of docs/sandbox.md, with what it
must come to in each level.
"""

import json
import os
import re
import shutil
import socket
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import psutil
import pytest

from conformance.archives import build_archives
from torchkeep.frontend.worker_users import closed_to_others, has_capability
from torchkeep.runtime.kernel import SCOPE_ABI, kernel_layers

ROOT = Path(__file__).resolve().parent.parent.parent
AS_USER = ROOT / "tests" / "support" / "as_user.py"
PLAIN_USER = 54321
LAYERS = kernel_layers()
NEEDED = {sys.prefix, sys.base_prefix, str(ROOT), os.path.dirname(sys.executable)}
CLOSED = [place for place in NEEDED if closed_to_others(Path(place))]
SYS_ADMIN = 21  # what a mount namespace takes
JSON = {"Content-Type": "application/json"}

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="only root can start a server as another user"),
    pytest.mark.skipif(
        bool(CLOSED) and not has_capability(SYS_ADMIN),
        reason=f"other users cannot enter {CLOSED}, and CAP_SYS_ADMIN is missing to show it them",
    ),
    pytest.mark.skipif(LAYERS.landlock_abi < SCOPE_ABI, reason=LAYERS.describe()),
]


def matrix() -> dict[str, dict[str, str]]:
    """Attempt to level to outcome, from the document."""
    found: dict[str, dict[str, str]] = {}
    for line in (ROOT / "docs" / "sandbox.md").read_text().splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if len(cells) == 4 and cells[1] in ("open", "refused"):
            for name in re.findall(r"`(\w+)`", cells[3]):
                found[name] = {"standard": cells[1], "strict": cells[2]}
    return found


def launcher(home: Path, user: int) -> list[str]:
    """What starts a server as this user, who owns all below `home`."""
    return [sys.executable, str(AS_USER), str(user), str(home), *NEEDED, "--"]


class Prison:
    """A server as some user, with everything that a handler might try to reach."""

    def __init__(self, home: Path, start: Callable[..., Any], user: int, level: str) -> None:
        self._home = home
        self._start = start
        self._user = user
        self._level = level

    def open(self, *more_models: str, **config: str) -> "Prison":
        home = self._home
        self.key = home / "private.key"
        self.key.write_text("key")
        self.archives = build_archives(home / "store", ["captive", "captive_online", "echo"])
        settings = {"sandbox": self._level, "private_key_file": str(self.key)}
        self.server = self._start(
            models=["captive.mar", "echo.mar", *more_models],
            store=home / "store",
            config={**settings, "default_workers_per_model": "1", **config},
            env={"HOME": str(home)},
            home=home,
            launcher=launcher(home, self._user),
        )
        self.server.wait_until_ready("captive", "echo")
        return self

    def __enter__(self) -> "Prison":
        """With something behind every address that is tried."""
        with ExitStack() as stack:
            tcp = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
            self.port = tcp.getsockname()[1]
            self.unix = self._home / "socket"
            self.abstract = f"torchkeep-{os.getpid()}"
            for address in (str(self.unix), f"\0{self.abstract}"):
                listening = stack.enter_context(socket.socket(socket.AF_UNIX))
                listening.bind(address)
                listening.listen()
            self.unix.chmod(0o777)
            self._listening = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._listening.close()

    def facts(self, torch: float = 0) -> dict[str, Any]:
        workers = {name: self.server.workers(name)[0]["pid"] for name in ("captive", "echo")}
        children = psutil.Process(self.server.pid).children()
        zygote = next(child.pid for child in children if child.pid not in workers.values())
        unpacked = (self.server.temp / "models").glob("*/echo.py")
        return {
            "frontend": self.server.pid,
            "zygote": zygote,
            "sibling": workers["echo"],
            "port": self.port,
            "unix": str(self.unix),
            "abstract": self.abstract,
            "key": str(self.key),
            "archive": str(self.archives["echo"]),
            "other": str(next(unpacked).parent),
            "torch": torch,
        }

    def report(self, model: str = "captive", torch: float = 0) -> Any:
        """`torch`: how many seconds a helper process of torch has for each of its orders."""
        body = json.dumps(self.facts(torch))
        status, _, answer = self.server.request(
            "POST", f"/predictions/{model}", body, JSON, timeout_s=100
        )
        assert status == 200, answer
        return json.loads(answer)


@pytest.fixture
def home() -> Iterator[Path]:
    """A directory that every user can enter, unlike pytest's own."""
    path = Path(tempfile.mkdtemp(prefix="torchkeep-prison-", dir="/var/tmp"))
    path.chmod(0o755)
    yield path
    shutil.rmtree(path)


@pytest.fixture
def prison(home: Path, server_factory: Callable[..., Any]) -> Iterator[Callable[..., Prison]]:
    with ExitStack() as stack:

        def build(user: int, level: str, *more_models: str, **config: str) -> Prison:
            made = stack.enter_context(Prison(home, server_factory, user, level))
            return made.open(*more_models, **config)

        yield build


USERS = pytest.mark.parametrize("user", [0, PLAIN_USER], ids=["root", "plain"])


@USERS
@pytest.mark.parametrize("level", ["standard", "strict"])
def test_a_hostile_handler_reaches_what_the_matrix_says(
    user: int, level: str, prison: Callable[..., Prison]
) -> None:
    held = prison(user, level)
    report = held.report()
    calls, descriptors, ids = (report.pop(name) for name in ("calls", "descriptors", "ids"))
    report.pop("torch")
    expected = {name: levels[level] for name, levels in matrix().items()}
    assert set(report) <= set(expected), "the document lacks attempts"
    wrong = {n: report[n] for n in report if report[n].split()[0] != expected[n]}
    assert wrong == {}
    if level == "strict":
        assert {name: one.split()[0] for name, one in calls.items()} == dict.fromkeys(
            calls, "refused"
        )
    # Nothing inherited but the output pipes and the worker's own connection.
    kinds = sorted(re.sub(r"\d+", "N", target) for target in descriptors.values())
    own = ["/proc/N"] if level == "strict" else []
    assert kinds == ["/dev/null", *own, "pipe:[N]", "pipe:[N]", "socket:[N]"]
    if user == 0:
        sibling = psutil.Process(held.facts()["sibling"]).uids().real
        assert 61184 <= ids[0] <= 65519
        assert ids[0] != sibling
        assert "stay root" not in held.server.log_text()
    else:
        assert ids[0] == PLAIN_USER


@USERS
def test_a_model_that_asks_for_network_gets_it_where_the_server_allows(
    user: int, prison: Callable[..., Prison]
) -> None:
    held = prison(user, "strict", sandbox_allow="network")
    status, _, body = held.server.request(
        "POST", "/models?url=captive_online.mar&synchronous=true", port="management"
    )
    assert status == 200, body
    report = held.report("captive_online")
    opened = {name for name, one in report.items() if one == "open"}
    assert opened == {"tcp", "listen", "udp", "dns", "helper", "own_model", "scratch"}


def test_a_model_that_asks_for_network_is_refused_where_the_server_does_not(
    prison: Callable[..., Prison],
) -> None:
    held = prison(PLAIN_USER, "strict", "captive_online.mar")
    reason = "set sandbox_allow=network in config.properties"
    held.server.wait_for_lines(reason)
    _, _, body = held.server.request("GET", "/models/captive_online", port="management")
    assert reason in json.loads(body)[0]["notReady"]


@pytest.mark.torch
@pytest.mark.parametrize("level", ["standard", "strict"])
def test_a_helper_process_of_torch_is_confined_too(
    level: str, prison: Callable[..., Prison]
) -> None:
    # In strict torch's pool has no place for its semaphores, so it never answers.
    report = prison(PLAIN_USER, level).report(torch=90 if level == "standard" else 5)["torch"]
    outcomes = {name: one.split()[0] for name, one in report.items()}
    open_to_it = {"file", "tcp"} if level == "standard" else set()
    assert {name for name, one in outcomes.items() if one == "open"} == open_to_it
    if level == "standard":
        assert "PermissionError" in report["key"] or "SubprocException" in report["key"]


def test_what_a_handler_says_stays_inside_where_it_is_strict(
    home: Path, prison: Callable[..., Prison], poll: Callable[..., Any]
) -> None:
    held = prison(PLAIN_USER, "strict")
    marker = "marker-of-an-input"
    status, _, body = held.server.request(
        "POST", "/predictions/captive?secret=query-marker", json.dumps({"raise": marker}), JSON
    )
    assert (status, json.loads(body)["message"]) == (503, "Prediction failed")
    # It is kept: in memory, for root alone.
    kept = [
        path
        for path in Path(f"/proc/{held.server.pid}/fd").iterdir()
        if "handler-log-M-captive_1.0" in os.readlink(path)
    ]
    assert len(kept) == 1
    poll(lambda: f"ValueError: {marker}" in kept[0].read_text(), "the handler's words in memory")
    log = held.server.wait_for_lines("POST /predictions/captive HTTP/1.1")
    assert marker not in log
    assert "query-marker" not in log
    found = [
        path for path in home.rglob("*") if path.is_file() and marker.encode() in path.read_bytes()
    ]
    assert found == []


NUMBERS = json.dumps([0.1, 0.2, -0.3, 4])
ASKED: dict[str, tuple[str, dict[str, str]]] = {
    "word_lengths": ("the size of a word", {"Content-Type": "text/plain"}),
    "mlp": (NUMBERS, JSON),
    "base": (NUMBERS, JSON),
}


@pytest.mark.torch
@pytest.mark.parametrize(
    "user", [pytest.param(0, marks=pytest.mark.long), PLAIN_USER], ids=["root", "plain"]
)
def test_ordinary_handlers_answer_alike_in_every_level(
    user: int, home: Path, server_factory: Callable[..., Any]
) -> None:
    """Two workers each: those of `base` share its weights."""
    build_archives(home / "store", ASKED)
    answers = {}
    for level in ("off", "standard", "strict"):
        server = server_factory(
            models=[f"{name}.mar" for name in ASKED],
            store=home / "store",
            config={"sandbox": level, "default_workers_per_model": "2"},
            env={"HOME": str(home)},
            home=home,
            launcher=launcher(home, user),
        )
        server.wait_until_ready(*ASKED)
        answers[level] = [
            server.request("POST", f"/predictions/{name}", body, headers)[::2]
            for name, (body, headers) in ASKED.items()
            for _ in range(4)
        ]
        server.stop()
    assert {status for status, _ in answers["off"]} == {200, 503}  # `base` answers no tensor
    assert answers["standard"] == answers["off"]
    assert answers["strict"] == answers["off"]
