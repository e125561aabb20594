"""The entry point of the image, as its own process: what runs, where, and what it complains of."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from torchkeep.runtime.container import CONFIG, VOLUME, server_command

SERVER = [sys.executable, "-P", "-m", "torchkeep.runtime", "--foreground"]


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ("serve", f"--start --ts-config {CONFIG} --disable-token-auth"),
        (
            "serve --models m.mar",
            f"--start --ts-config {CONFIG} --disable-token-auth --models m.mar",
        ),
        ("torchserve --start --model-store=/mnt/models", "--start --model-store=/mnt/models"),
        ("torchserve --model-store s --foreground", "--model-store s --foreground"),
        ("torchkeep serve --model-store s", "--model-store s"),
    ],
)
def test_what_starts_a_server_is_kept_in_the_foreground(arguments: str, expected: str) -> None:
    assert server_command(arguments.split()) == [*SERVER, *expected.split()]


@pytest.mark.parametrize(
    "arguments",
    ["torchserve --stop", "torchserve --version", "torchkeep doctor", "torchkeep", "python3 x.py"],
)
def test_anything_else_is_none(arguments: str) -> None:
    assert server_command(arguments.split()) is None


def run(
    *arguments: str, volume: Path, user: int | None = None, cwd: Path | None = None
) -> "subprocess.CompletedProcess[str]":
    places = {"TEMP": "tmp", "LOG_LOCATION": "logs", "METRICS_LOCATION": "logs", "HOME": "home"}
    return subprocess.run(
        [sys.executable, "-P", "-m", "torchkeep.runtime.container", *arguments],
        env={**os.environ, **{name: str(volume / place) for name, place in places.items()}},
        user=user,
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=60,
    )


def test_a_command_is_executed_as_given(tmp_path: Path) -> None:
    told = "import os, sys; print(sys.argv[1:], os.path.isdir(os.environ['TEMP'])); sys.exit(7)"
    done = run(sys.executable, "-c", told, "a b", "*", volume=tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (7, "['a b', '*'] True\n", "")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["home", "logs", "tmp"]


def test_a_command_that_is_not_there_is_named(tmp_path: Path) -> None:
    done = run("no-such-command", volume=tmp_path)
    assert done.returncode == 127
    assert done.stderr == "no-such-command cannot be run: No such file or directory\n"


def test_wrong_usage_of_torchserve_ends_as_everywhere(tmp_path: Path) -> None:
    done = run("torchserve", "--models", volume=tmp_path)
    assert done.returncode == 2
    assert "usage: torchserve" in done.stderr


@pytest.mark.parametrize("obstacle", ["a file", "not ours"])
def test_with_no_place_to_write_the_error_names_what_to_mount(
    tmp_path: Path, obstacle: str
) -> None:
    """A read-only root is tried with the image; here the same path ends in other errors."""
    if obstacle == "a file":
        volume = tmp_path / "file"
        volume.touch()
    else:
        volume = Path("/proc")  # where not even root makes a directory
    done = run("serve", volume=volume)
    assert done.returncode == 1
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"torchkeep: no place to write: {volume}/tmp: ")
    assert f"--tmpfs {VOLUME}:uid={os.geteuid()}" in line
    assert "emptyDir" in line


def test_without_a_place_to_write_other_commands_run(tmp_path: Path) -> None:
    done = run("/bin/echo", "x", volume=Path("/proc"))
    assert (done.returncode, done.stdout) == (0, "x\n")


def test_a_signal_that_comes_while_a_server_starts_waits_for_it(tmp_path: Path) -> None:
    """In a container nobody else would take it: the first process has no default actions."""
    places = {name: str(tmp_path) for name in ("TEMP", "LOG_LOCATION", "METRICS_LOCATION")}
    (tmp_path / "store").mkdir()
    (tmp_path / "config").write_text(
        "".join(
            f"{name}_address=unix:{tmp_path}/{name[0]}\n" for name in ("inference", "management")
        )
        + "enable_metrics_api=false\n"
    )
    # It is there before the interpreter of the server is: the mask and the signal are inherited.
    sent = (
        "import os, signal, sys\n"
        "execute = os.execvp\n"
        "def send_and_execute(*command):\n"
        "    os.kill(os.getpid(), signal.SIGTERM)\n"
        "    execute(*command)\n"
        "os.execvp = send_and_execute\n"
        "from torchkeep.runtime.container import main\n"
        "sys.exit(main())\n"
    )
    server = subprocess.run(
        [sys.executable, "-P", "-c", sent, "torchserve", "--start", "--ncs", "--model-store",
         str(tmp_path / "store"), "--ts-config", str(tmp_path / "config")],
        env={**os.environ, **places},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
    )  # fmt: skip
    assert server.returncode == 0, server.stdout + server.stderr
    assert "Torchserve stopped." in server.stdout
    assert signal.SIGTERM not in signal.pthread_sigmask(signal.SIG_BLOCK, [])
