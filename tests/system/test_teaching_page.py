"""docs/handlers.md, from the empty folder to the end: every file is written, every command run.

A block whose first line is `# NAME` is a file. In a `console` block, lines after `$ ` and `> ` are
commands for bash, all others what they print; `...` stands for lines, or for the beginning or the
end of one. Only what has to differ is replaced: ports. Not compared are times, and into how many
batches requests fell: that depends on the machine, and is tried until three are one.
"""

import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

from bench.servers import free_ports
from torchkeep.runtime.kernel import kernel_layers

PAGE = Path(__file__).resolve().parents[2] / "docs" / "handlers.md"
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
LAYERS = kernel_layers()
BATCHES = re.compile(r"(?<=^Batches).* (\d+)\.0$", re.MULTILINE)
VARIES = re.compile(rf'\d+\.\d+(?= ?s\b)|(?<=Hostname=")[^"]*|{BATCHES.pattern}', re.MULTILINE)

pytestmark = [
    pytest.mark.torch,
    pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed"),
    pytest.mark.skipif(bool(LAYERS.missing_for_strict), reason=LAYERS.describe()),
]


class Reader:
    """Follows the page in a folder of their own, with one terminal for a server."""

    def __init__(self, folder: Path, poll: Callable[..., object]) -> None:
        self._folder, self._poll = folder, poll
        ports = free_ports(3)
        self._ports = {str(8080 + number): str(port) for number, port in enumerate(ports)}
        (folder / "tmp").mkdir()
        self._env = {
            **os.environ,
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "TEMP": str(folder / "tmp"),
            "LC_ALL": "C.UTF-8",
            "PYTHONDONTWRITEBYTECODE": "1",
        }
        self._server: subprocess.Popen[bytes] | None = None
        self._screen = folder / "tmp" / "screen"

    def write(self, name: str, content: str) -> None:
        if name == "config.properties":
            kinds = ("inference", "management", "metrics")
            for kind, port in zip(kinds, self._ports, strict=True):
                content += f"{kind}_address=http://127.0.0.1:{port}\n"
        (self._folder / name).write_text(self._here(content))

    def run(self, command: str, shown: str) -> None:
        """Run it, and compare what it prints with what the page shows."""
        if "torchserve --start" in command:
            self._serve(command, shown)
            return
        printed = self.answer(command)
        assert looks_like(printed, shown), f"{command}\nprints\n{printed}\nand not\n{shown}"

    def answer(self, command: str) -> str:
        ended = subprocess.run(
            ["bash", "-c", self._here(command)],
            cwd=self._folder,
            env=self._env,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=100,
        )
        assert ended.returncode == 0, f"{command}\n{ended.stdout.decode()}"
        return ended.stdout.decode()

    def stop(self) -> None:
        if self._server:
            self._server.send_signal(signal.SIGINT)  # Ctrl-C
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._server.wait(30)
            if self._server.poll() is None:
                self._server.kill()
                self._server.wait()
            assert self._server.returncode == 0, self._screen.read_text()
            self._server = None

    def _serve(self, command: str, shown: str) -> None:
        self.stop()
        with self._screen.open("wb") as screen:
            self._server = subprocess.Popen(
                ["bash", "-c", f"exec {self._here(command)}"],
                cwd=self._folder,
                env=self._env,
                stdin=subprocess.DEVNULL,
                stdout=screen,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self._poll(lambda: looks_like(self._screen.read_text(), f"{shown}\n..."), shown)

    def _here(self, text: str) -> str:
        return re.sub("|".join(self._ports), lambda found: self._ports[found[0]], text)


def looks_like(printed: str, shown: str) -> bool:
    """Whether these lines are those, but for what varies and what is left out."""
    lines = iter(VARIES.sub("?", printed.strip()).splitlines())
    may_skip = False
    for wanted in VARIES.sub("?", shown.strip()).splitlines():
        if wanted == "...":
            may_skip = True
            continue
        pattern = ".*".join(map(re.escape, wanted.split("...")))
        for line in lines:
            if re.fullmatch(pattern, line):
                break
            if not may_skip:
                return False
        else:
            return False
        may_skip = False
    return may_skip or next(lines, None) is None


def commands(block: str) -> Iterator[tuple[str, str]]:
    """Each command of a console, and what it prints."""
    for part in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
        lines = part.splitlines()
        end = next(
            (number for number, line in enumerate(lines[1:], 1) if not line.startswith("> ")),
            len(lines),
        )
        command = [lines[0], *(line.removeprefix("> ") for line in lines[1:end])]
        yield "\n".join(command), "\n".join(lines[end:])


@pytest.fixture
def reader(tmp_path: Path, poll: Callable[..., object]) -> Iterator[Reader]:
    reader = Reader(tmp_path, poll)
    yield reader
    reader.stop()


def test_the_page_does_what_it_says(reader: Reader, poll: Callable[..., object]) -> None:
    at_once = ""
    for language, block in BLOCK.findall(PAGE.read_text()):
        if language != "console":
            name = re.match(r"# (\S+)\n", block)
            assert name, f"a {language} block that is no file:\n{block}"
            reader.write(name[1], block)
            continue
        for command, shown in commands(block):
            reader.run(command, shown)
            if command.endswith("wait"):
                at_once = command
            if "/metrics" in command:
                poll(partial(are_one_batch, reader, at_once, command), "one batch of three")


def are_one_batch(reader: Reader, at_once: str, metrics: str) -> bool:
    before = BATCHES.findall(reader.answer(metrics))
    reader.answer(at_once)
    after = BATCHES.findall(reader.answer(metrics))
    return int(after[0]) == int(before[0]) + 1
