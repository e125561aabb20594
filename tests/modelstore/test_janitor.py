"""What a killed server unpacked does not stay in memory."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from torchkeep.modelstore.janitor import Janitor
from torchkeep.modelstore.unpack_area import UnpackArea

SERVER = """
import sys
from pathlib import Path
from torchkeep.modelstore.janitor import Janitor
from torchkeep.modelstore.unpack_area import UnpackArea
root = Path(sys.argv[1])
with Janitor([root]) as janitor:
    unpacked = UnpackArea(root).create()
    (unpacked.path / "weights").write_text("secret")
    print(janitor._process.pid, flush=True)
    sys.stdin.read()
"""


def test_a_killed_server_leaves_nothing(tmp_path: Path, poll: Callable[..., object]) -> None:
    others = UnpackArea(tmp_path).create()  # of a server that lives
    with subprocess.Popen(
        [sys.executable, "-c", SERVER, str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as server:
        assert server.stdout is not None
        janitor = int(server.stdout.readline())
        assert len(list(tmp_path.rglob("weights"))) == 1
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            os.kill(janitor, number)
        server.kill()
    poll(lambda: not list(tmp_path.rglob("weights")), "the secret is gone")
    assert others.path.exists()
    others.remove()
    poll(lambda: not list((tmp_path / "models").iterdir()), "its lock is gone too")


def test_a_server_that_says_goodbye_keeps_what_it_keeps(tmp_path: Path) -> None:
    with Janitor([tmp_path]) as janitor:
        assert janitor._process is not None
        unpacked = UnpackArea(tmp_path).create()
    assert janitor._process.returncode == 0
    assert unpacked.path.exists()
    unpacked.remove()


def test_a_janitor_that_was_killed_hinders_nobody(tmp_path: Path) -> None:
    with Janitor([tmp_path]) as janitor:
        assert janitor._process is not None
        janitor._process.kill()
        janitor._process.wait()
