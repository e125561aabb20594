"""How a worker waits for its next request."""

import os
import platform
import socket
import threading
from collections.abc import Iterator

import pytest

from torchkeep.backend import worker
from torchkeep.backend.worker import Worker
from torchkeep.runtime.messages import Loaded
from torchkeep.runtime.wire import SECRET_BYTES, Wire


@pytest.fixture
def ours(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[socket.socket, Worker]]:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1})
    here, there = socket.socketpair()
    waiting = Worker(there, "9000", 0)
    waiting._wire = Wire("worker", bytes(SECRET_BYTES), "9000")
    with here, there:
        yield here, waiting


def test_a_worker_that_is_asked_soon_looks_out_for_the_next_request(
    ours: tuple[socket.socket, Worker], monkeypatch: pytest.MonkeyPatch
) -> None:
    here, waiting = ours
    monkeypatch.setattr(worker, "SOON_S", 60.0)
    monkeypatch.setattr(worker, "LOOKOUT_S", 60.0)
    here.sendall(b"abc")
    assert waiting._receive() == 3
    assert waiting._looks_out
    later = threading.Timer(0.05, here.sendall, [b"de"])
    later.start()
    assert waiting._receive() == 2
    later.join()
    here.close()
    assert waiting._receive() == 0


def test_a_worker_that_waited_long_goes_to_sleep(
    ours: tuple[socket.socket, Worker], monkeypatch: pytest.MonkeyPatch
) -> None:
    here, waiting = ours
    monkeypatch.setattr(worker, "SOON_S", 0.0)
    waiting._looks_out = True
    later = threading.Timer(0.05, here.sendall, [b"abc"])
    later.start()
    assert waiting._receive() == 3  # long after the lookout ended
    later.join()
    assert not waiting._looks_out


def test_a_worker_says_what_log_readers_look_for_and_ends_with_its_frontend(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for change in ("reset_signals", "adopt", "reseed"):
        monkeypatch.setattr(worker.process, change, lambda *_: None)
    for change in ("become_subreaper", "keep_memory_private"):
        monkeypatch.setattr(worker, change, lambda: None)
    here, there = socket.socketpair()
    with there:
        here.sendall(bytes(SECRET_BYTES))
        here.close()
        Worker(there, "9000", 0).run()
    version = platform.python_version()
    assert capsys.readouterr().out.splitlines() == [
        f"[PID]{os.getpid()}",
        "Torch worker started.",
        f"Python runtime: {version}",
        "Connection accepted: 9000.",
        "Frontend disconnected.",
    ]


def test_on_one_core_a_worker_does_not_look_out(
    ours: tuple[socket.socket, Worker], monkeypatch: pytest.MonkeyPatch
) -> None:
    here, waiting = ours
    monkeypatch.setattr(worker, "SOON_S", 60.0)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0})
    here.sendall(b"abc")
    waiting._receive()
    assert not waiting._looks_out


def test_a_fork_of_a_worker_cannot_answer(ours: tuple[socket.socket, Worker]) -> None:
    here, waiting = ours
    waiting._leave_to_parent()
    with pytest.raises(SystemExit, match="only the worker answers"):
        waiting._send(Loaded(200, "loaded"))
    assert here.recv(1) == b""
