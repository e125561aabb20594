"""`torchserve` from check to exit code; texts and codes are those of the real 0.12."""

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from torchkeep.runtime import start_stop
from torchkeep.runtime.command_line import Flags
from torchkeep.runtime.errors import ConfigError
from torchkeep.runtime.start_stop import server_process, torchkeep, torchserve

Run = Callable[..., tuple[int, str]]

# Stands in for a server: only its command line and how it takes SIGTERM matter here.
POLITE = "import time; print(flush=True); time.sleep(60)"
DEAF = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); " + POLITE


def no_server(flags: Flags) -> int:
    raise AssertionError("nothing was to be served")


@pytest.fixture(autouse=True)
def temp(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with a model store, and a temp directory of our own."""
    temp = tmp_path / "temp"
    temp.mkdir()
    (tmp_path / "store").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(tempfile, "tempdir", str(temp))
    for name in ("TEMP", "TS_CONFIG_FILE"):
        monkeypatch.delenv(name, raising=False)
    return temp


@pytest.fixture
def pid_path(temp: Path) -> Path:
    return temp / ".model_server.pid"


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    def run(
        *arguments: str, serve: Callable[[Flags], int] = no_server, command: Any = torchserve
    ) -> tuple[int, str]:
        code = command(arguments, serve)
        return code, capsys.readouterr().out

    return run


@pytest.fixture
def process() -> Iterator[Callable[[str], "subprocess.Popen[bytes]"]]:
    started = []

    def start(program: str, *arguments: str) -> "subprocess.Popen[bytes]":
        command = [sys.executable, "-c", program, *arguments]
        child = subprocess.Popen(command, stdout=subprocess.PIPE)
        started.append(child)
        assert child.stdout is not None
        child.stdout.read(1)  # it has taken its signal handlers by now
        return child

    yield start
    for child in started:
        child.kill()
        child.communicate()


@pytest.fixture
def server(process: Callable[..., "subprocess.Popen[bytes]"], pid_path: Path) -> int:
    pid = process(POLITE, "torchkeep.runtime").pid
    pid_path.write_text(f"{pid}\n")
    return pid


@pytest.fixture
def dead_pid() -> int:
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    return child.pid


def test_version(run: Run) -> None:
    assert run("--version") == (0, "TorchServe Version is 0.12.0\n")


def test_version_beside_an_orphan_pid_file(run: Run, dead_pid: int, pid_path: Path) -> None:
    pid_path.write_text(f"{dead_pid}\n")
    expected = "Removing orphan pid file.\nTorchServe Version is 0.12.0\n"
    assert run("--version") == (0, expected)
    assert not pid_path.exists()


# Stop.


def test_stop_without_a_server(run: Run) -> None:
    assert run("--stop") == (0, "TorchServe is not currently running.\n")


def test_stop_ends_the_server_and_removes_its_files(run: Run, server: int, pid_path: Path) -> None:
    Path("key_file.json").write_text("{}")
    assert run("--stop") == (0, "TorchServe has stopped.\n")
    assert not pid_path.exists()
    assert not Path("key_file.json").exists()
    assert os.waitstatus_to_exitcode(os.waitpid(server, 0)[1]) == -signal.SIGTERM


def test_stop_in_the_foreground_waits_and_says_nothing(run: Run, server: int) -> None:
    assert run("--stop", "--foreground") == (0, "")
    assert os.waitpid(server, os.WNOHANG)[0] == server


def test_stop_in_the_foreground_gives_up(
    run: Run,
    process: Callable[..., "subprocess.Popen[bytes]"],
    pid_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pid_path.write_text(str(process(DEAF, "torchkeep.runtime").pid))
    assert start_stop.STOP_TIMEOUT_S == 60
    monkeypatch.setattr(start_stop, "STOP_TIMEOUT_S", 0.05)
    assert run("--stop", "--foreground") == (0, "Stopping TorchServe took too long.\n")
    assert not pid_path.exists()


def test_stop_finds_an_orphan_pid_file(run: Run, dead_pid: int, pid_path: Path) -> None:
    pid_path.write_text(str(dead_pid))
    expected = "Removing orphan pid file.\nTorchServe is not currently running.\n"
    assert run("--stop") == (0, expected)
    assert not pid_path.exists()


def test_stop_of_a_server_whose_parent_has_not_looked_yet(run: Run, pid_path: Path) -> None:
    child = subprocess.Popen([sys.executable, "-c", ""])
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    pid_path.write_text(f"{child.pid}\n")
    try:
        expected = "Removing orphan pid file.\nTorchServe is not currently running.\n"
        assert run("--stop") == (0, expected)
        assert not pid_path.exists()
    finally:
        child.wait()


def test_stop_of_a_server_that_ended_meanwhile(
    run: Run, dead_pid: int, pid_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pid_path.write_text(str(dead_pid))
    monkeypatch.setattr(start_stop, "is_alive", lambda pid: True)
    monkeypatch.setattr(start_stop, "is_server", lambda pid: True)
    assert run("--stop") == (0, "TorchServe already stopped.\n")
    assert not pid_path.exists()


def test_the_pid_of_another_program_is_left_alone(
    run: Run, process: Callable[..., "subprocess.Popen[bytes]"], pid_path: Path
) -> None:
    other = process(POLITE)
    pid_path.write_text(str(other.pid))
    assert run("--stop") == (0, "TorchServe is not currently running.\n")
    assert pid_path.exists()
    assert other.poll() is None


@pytest.mark.parametrize("flag", ["--stop", "--start"])
def test_a_pid_file_that_holds_no_number(
    flag: str, pid_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pid_path.write_text("x\n")
    assert torchserve([flag], no_server) == 1
    assert "ValueError: invalid literal for int() with base 10: 'x'" in capsys.readouterr().err


# What start objects to.


def test_start_beside_a_running_server(run: Run, server: int, pid_path: Path) -> None:
    expected = "TorchServe is already running, please use torchserve --stop to stop TorchServe.\n"
    assert run("--start", "--model-store", "store") == (1, expected)
    assert pid_path.read_text() == f"{server}\n"


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ("", "Missing mandatory parameter --model-store"),
        ("--cpp-log-config nope", "Missing mandatory parameter --model-store"),
        ("--model-store nope --workflow-store nope", "--model-store directory not found: nope"),
        (
            "--model-store store --workflow-store nope --cpp-log-config nope",
            "--workflow-store directory not found: nope",
        ),
        ("--model-store nope --ts-config nope", "--ts-config file not found: nope"),
        ("--ts-config nope --log-config nope", "--log-config file not found: {cwd}/nope"),
        (
            "--model-store store --cpp-log-config nope",
            "--cpp-log-config file not found: {cwd}/nope",
        ),
    ],
)
def test_bad_paths(run: Run, arguments: str, complaint: str, tmp_path: Path) -> None:
    expected = complaint.format(cwd=os.path.realpath(tmp_path))
    assert run(*arguments.split()) == (1, f"{expected}\n")


def test_a_bad_temp_directory(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEMP", "/nowhere")
    expected = "Invalid temp directory: /nowhere, please check TEMP environment variable.\n"
    assert run("--ts-config", "nope") == (1, expected)


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ("model_store = st x", "--model-store directory not found: st x"),
        (" model_store=st=x # c", "--model-store directory not found: st=x # c"),
        ("model_store=$$X$$", "--model-store directory not found: $$X$$"),
        ("model_store: stx", "Missing mandatory parameter --model-store"),
        ("#model_store=store", "Missing mandatory parameter --model-store"),
    ],
)
def test_the_launchers_own_look_into_the_file(run: Run, line: str, complaint: str) -> None:
    Path("file").write_text(f"{line}\n")
    assert run("--ts-config", "file") == (1, f"{complaint}\n")


def test_the_file_of_the_environment_counts(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TS_CONFIG_FILE", "nope")
    assert run("--model-store", "store") == (1, "--ts-config file not found: nope\n")


def test_a_usual_file_does_not_name_the_store(run: Run) -> None:
    # TorchServe: the launcher never looks into ./config.properties.
    Path("config.properties").write_text("model_store=store\n")
    assert run("--start") == (1, "Missing mandatory parameter --model-store\n")


# Start.


def test_the_foreground_serves_here_and_cleans_up(run: Run, pid_path: Path) -> None:
    def serve(flags: Flags) -> int:
        assert flags == Flags(model_store="store", foreground=True)
        assert pid_path.read_text() == f"{os.getpid()}\n"
        return 5

    arguments = ("--model-store", "store", "--foreground")
    assert run(*arguments, serve=serve, command=server_process) == (5, "")
    assert not pid_path.exists()
    # TorchServe: its launcher says 0 however the server ended.
    assert run(*arguments, serve=serve) == (0, "")
    assert not pid_path.exists()


def test_the_store_may_come_from_the_file(run: Run) -> None:
    Path("file").write_text("model_store=store\n")
    assert run("--ts-config", "file", "--foreground", serve=lambda flags: 0) == (0, "")


def test_a_configuration_error_is_said(run: Run, pid_path: Path) -> None:
    def serve(flags: Flags) -> int:
        raise ConfigError("Invalid port number: http://h:70000 (here)")

    expected = "Invalid configuration: Invalid port number: http://h:70000 (here)\n"
    arguments = ("--model-store", "store", "--foreground")
    assert run(*arguments, serve=serve) == (0, expected)
    assert run(*arguments, serve=serve, command=server_process) == (1, expected)
    assert torchkeep(["serve", "--model-store", "store"], serve, {"doctor": serve}) == 1
    assert not pid_path.exists()


def test_a_server_started_by_a_launcher_finds_its_own_number(run: Run, pid_path: Path) -> None:
    pid_path.write_text(f"{os.getpid()}\n")
    assert run("--model-store", "store", "--foreground", serve=lambda flags: 0) == (0, "")


def test_the_next_server_keeps_its_file(run: Run, pid_path: Path) -> None:
    def serve(flags: Flags) -> int:
        pid_path.write_text("1\n")  # stopped, and another started, while this one drains
        return 0

    run("--model-store", "store", "--foreground", serve=serve)
    assert pid_path.read_text() == "1\n"


def test_torchkeep_serve_is_the_foreground() -> None:
    assert (
        torchkeep(
            ["serve", "--model-store", "store"],
            serve=lambda flags: 3 if flags.foreground else 4,
            inspections={"doctor": lambda flags: 5},
        )
        == 3
    )


def test_doctor_needs_no_server(capsys: pytest.CaptureFixture[str]) -> None:
    def broken(flags: Flags) -> int:
        raise ConfigError("c.properties: no such file")

    assert (
        torchkeep(["doctor"], serve=lambda flags: 4, inspections={"doctor": lambda flags: 5}) == 5
    )
    assert torchkeep(["doctor", "--ts-config", "c"], lambda flags: 4, {"doctor": broken}) == 1
    assert capsys.readouterr().out == "Invalid configuration: c.properties: no such file\n"


def test_start_in_the_background_returns_at_once(
    run: Run, pid_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stand_in = tmp_path / "python"
    stand_in.write_text(
        "#!/bin/sh\ncut -d' ' -f6 /proc/$$/stat > sid; readlink /proc/$$/fd/0 > stdin\n"
        'printf "%s\\n" "$@" > arguments.part; mv arguments.part arguments\n'
    )
    stand_in.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(stand_in))
    assert run("--start", "--model-store", "store", "--models", "a", "b") == (0, "")
    pid = int(pid_path.read_text())
    assert os.waitpid(pid, 0) == (pid, 0)
    assert Path("arguments").read_text().split() == [
        *["-P", "-m", "torchkeep.runtime", "--foreground"],
        *["--start", "--model-store", "store", "--models", "a", "b"],
    ]
    assert int(Path("sid").read_text()) == pid
    assert Path("stdin").read_text() == "/dev/null\n"
