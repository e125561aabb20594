"""`torchserve --start` and `--stop` as typed: a server in the background, of either kind."""

import contextlib
import os
import subprocess
import sys
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
from reference import as_parameters

from bench.servers import free_ports

RUNNING = "TorchServe is already running, please use torchserve --stop to stop TorchServe.\n"
START_LIMIT_S = 60


class Shell:
    """Somebody who types `torchserve ...` in one directory; what servers print is in `output`."""

    def __init__(self, is_reference: bool, home: Path) -> None:
        own = Path(sys.executable).parent
        commands = Path(os.environ["TORCHKEEP_REFERENCE"]) / "bin" if is_reference else own
        self.home = home
        self.output = home / "output"
        self._temp = home / "temp"
        self._temp.mkdir()
        self._torchserve = str(commands / "torchserve")
        self._environment = {
            **os.environ,
            "PATH": f"{commands}{os.pathsep}{os.environ['PATH']}",
            "TMPDIR": str(self._temp),
        }

    @property
    def pid_file(self) -> Path:
        return self._temp / ".model_server.pid"

    def type(self, *arguments: str) -> int:
        """The exit code. The server it starts keeps the output open, as it would a terminal's."""
        with self.output.open("ab") as output:
            return subprocess.run(
                [self._torchserve, *arguments],
                cwd=self.home,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                timeout=90,
            ).returncode


@pytest.mark.parametrize("is_reference", as_parameters())
def test_a_server_in_the_background_from_start_to_stop(
    is_reference: bool, tmp_path: Path, poll: Callable[..., Any]
) -> None:
    ports = free_ports(3)
    (tmp_path / "store").mkdir()
    names = ("inference", "management", "metrics")
    (tmp_path / "config.properties").write_text(
        "".join(
            f"{name}_address=http://127.0.0.1:{port}\n"
            for name, port in zip(names, ports, strict=True)
        )
    )
    start = ("--start", "--model-store", "store", "--ncs", "--disable-token-auth")
    shell = Shell(is_reference, tmp_path)
    server = None
    try:
        assert shell.type(*start) == 0
        server = psutil.Process(int(shell.pid_file.read_text()))
        poll(lambda: "Model server started." in shell.output.read_text(), "start", START_LIMIT_S)
        with urllib.request.urlopen(f"http://127.0.0.1:{ports[0]}/ping", timeout=30) as answer:
            assert answer.read() == b'{\n  "status": "Healthy"\n}\n'

        assert shell.type(*start) == 1
        assert shell.type("--start", "--foreground", "--model-store", "nowhere") == 1
        assert shell.output.read_text().count(RUNNING) == 2
        assert shell.type("--version") == 0
        assert "TorchServe Version is 0.12.0\n" in shell.output.read_text()
        assert server.is_running()
        assert "libtorch" not in Path(f"/proc/{server.pid}/maps").read_text()

        assert shell.type("--stop", "--foreground") == 0
        poll(lambda: not server.is_running(), "the end of the server")
        assert not shell.pid_file.exists()
        assert shell.type("--stop") == 0
        assert shell.output.read_text().endswith("TorchServe is not currently running.\n")
    finally:
        with contextlib.suppress(psutil.NoSuchProcess):
            if server is not None:
                for process in (*server.children(recursive=True), server):
                    process.kill()
