"""Images built by buildah, and containers of them: for tests that start what users start."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

SUPPORT = Path(__file__).resolve().parent
# Asks in the container's own network, by its own Python: status and body on standard output.
ASK = """
import http.client, json, sys
method, port, path = sys.argv[1:]
connection = http.client.HTTPConnection("127.0.0.1", int(port), timeout=60)
connection.request(method, path, sys.stdin.buffer.read() or None)
response = connection.getresponse()
print(json.dumps([response.status, response.read().decode()]))
"""


@dataclass(frozen=True)
class Buildah:
    """buildah with a store of its own, of which nothing stays behind."""

    home: Path

    def __call__(self, *arguments: str | Path, timeout_s: float = 120) -> str:
        policy = self.home / "policy.json"
        if not policy.exists():
            policy.write_text('{"default": [{"type": "insecureAcceptAnything"}]}')
        done = subprocess.run(
            ["buildah", "--root", self.home / "store", "--runroot", self.home / "run", *arguments],
            env={**os.environ, "BUILDAH_ISOLATION": "chroot"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout_s,
        )
        if done.returncode:
            raise AssertionError(f"buildah {arguments[0]}: {done.stdout[-4000:]}{done.stderr}")
        return done.stdout.strip()

    @property
    def policy(self) -> tuple[str, str]:
        """For commands that read images: this machine may have no policy of its own."""
        return ("--signature-policy", str(self.home / "policy.json"))

    def import_base(self, rootfs: Path, name: str) -> None:
        container = self("from", "scratch")
        self("add", "--quiet", container, rootfs, "/")
        self("commit", "--quiet", "--rm", *self.policy, container, name)

    def remove_all(self) -> None:
        self("rm", "--all")
        self("rmi", "--all", "--force")


@dataclass(frozen=True)
class Image:
    """An image, unpacked, and what it says of itself."""

    root: Path
    config: Mapping[str, Any]  # as Docker has it: Entrypoint, Cmd, Env, User, ...

    @property
    def environment(self) -> dict[str, str]:
        return dict(line.split("=", 1) for line in self.config["Env"])


@contextmanager
def unpacked(buildah: Buildah, name: str) -> Iterator[Image]:
    said = json.loads(buildah("inspect", "--type", "image", name))["Docker"]["config"]
    container = buildah("from", *buildah.policy, name)
    yield Image(Path(buildah("mount", container)), said)
    buildah("rm", container)


class Container:
    """A command in an image, on a read-only root and in a network of its own."""

    def __init__(
        self,
        image: Image,
        workdir: Path,
        args: Sequence[str] | None = None,
        *,
        tmpfs: Mapping[str, str] | None = None,
        files: Mapping[str, Path] | None = None,
        env: Mapping[str, str] | None = None,
        user: str | None = None,
        writable_root: bool = False,
    ) -> None:
        """`args` and `user` in place of the image's own; `files` are mounted read-only."""
        self.image = image
        self.user = user or image.config["User"]
        self.environment = {**image.environment, **(env or {})}
        self.cwd = image.config["WorkingDir"]
        command = [*image.config["Entrypoint"], *(image.config["Cmd"] if args is None else args)]
        spec = {
            "image": str(image.root),
            "user": self.user,
            "env": self.environment,
            "cwd": self.cwd,
            "args": command,
            "tmpfs": tmpfs or {},
            "files": {path: str(here) for path, here in (files or {}).items()},
            "writable_root": writable_root,
        }
        workdir.mkdir(parents=True, exist_ok=True)
        specification = workdir / "specification.json"
        specification.write_text(json.dumps(spec))
        self._output = workdir / "output.log"
        with self._output.open("wb") as output:
            self._outer = subprocess.Popen(
                [sys.executable, SUPPORT / "own_network.py",
                 sys.executable, SUPPORT / "in_image.py", specification],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
            )  # fmt: skip

    @property
    def output(self) -> str:
        return self._output.read_text(errors="replace")

    @property
    def first_process(self) -> psutil.Process:
        """Its process number 1, as this machine sees it."""
        (first,) = psutil.Process(self._outer.pid).children()
        return first

    def wait(self, timeout_s: float) -> int:
        """The exit code, as `docker wait` tells it."""
        return self._outer.wait(timeout_s)

    def stop(self, timeout_s: float = 60) -> int:
        self.first_process.send_signal(signal.SIGTERM)
        return self.wait(timeout_s)

    def kill(self) -> None:
        self._outer.kill()  # its first process goes with it, and all others with that one
        self._outer.wait()

    def execute(
        self, *command: str, request: bytes | None = None
    ) -> "subprocess.CompletedProcess[bytes]":
        """As `docker exec` runs a command."""
        user, _, group = self.user.partition(":")
        environment = [f"{name}={value}" for name, value in self.environment.items()]
        return subprocess.run(
            ["nsenter", "--target", str(self.first_process.pid), "--mount", "--pid", "--net",
             "--ipc", "--uts", f"--root=/proc/{self.first_process.pid}/root",
             f"--setuid={user}", f"--setgid={group}",
             "/usr/bin/env", "-i", "-C", self.cwd, *environment, *command],
            input=request or b"",
            capture_output=True,
            timeout=120,
        )  # fmt: skip

    def ask(self, method: str, port: int, path: str, body: bytes = b"") -> tuple[int, str]:
        """Status and body of one request over the container's loopback device."""
        arguments = ("python3", "-c", ASK, method, str(port), path)
        asked = self.execute(*arguments, request=body)
        if asked.returncode:
            raise AssertionError(asked.stderr.decode(errors="replace"))
        status, text = json.loads(asked.stdout)
        return status, text

    def wait_for_line(self, text: str, timeout_s: float = 120) -> None:
        end = time.monotonic() + timeout_s
        while text not in self.output:
            ended = self._outer.poll()
            assert ended is None, f"it ended with {ended}: {self.output}"
            assert time.monotonic() < end, f"not within {timeout_s} s: {text}\n{self.output}"
            time.sleep(0.05)
