"""What a forked process does to itself."""

import os
import subprocess
import sys
import time

import pytest

from torchkeep.backend import process


def _fail_noisily() -> None:
    with process.quiet_stderr():
        os.write(2, b"why\n")
        raise ValueError("x")


def test_stderr_is_held_back_unless_something_fails(capfd: pytest.CaptureFixture[str]) -> None:
    with process.quiet_stderr():
        os.write(2, b"noise\n")
    with pytest.raises(ValueError, match="x"):
        _fail_noisily()
    os.write(2, b"after\n")
    assert capfd.readouterr().err == "why\nafter\n"


def test_a_process_whose_frontend_is_gone_does_not_wait_for_it() -> None:
    frontend = subprocess.Popen(["true"])
    frontend.wait()
    started = time.monotonic()
    with pytest.raises(SystemExit, match="the frontend is gone"):
        process.adopt(frontend.pid)
    assert time.monotonic() - started < 5  # of the ten seconds it has otherwise


def test_threads_are_the_plans_unless_the_environment_decides(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    torch = pytest.importorskip("torch")
    before = torch.get_num_threads()
    try:
        monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
        process.set_threads(3)
        assert (torch.get_num_threads(), os.environ["OMP_NUM_THREADS"]) == (3, "3")
        assert process.compute_threads() == 3
        monkeypatch.setenv("OMP_NUM_THREADS", "2")
        process.set_threads(3)
        assert (torch.get_num_threads(), os.environ["OMP_NUM_THREADS"]) == (2, "2")
    finally:
        torch.set_num_threads(before)


def test_a_process_without_torch_computes_with_no_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "torch", raising=False)
    assert process.compute_threads() == 0


@pytest.mark.parametrize("streams", ["None", "object()", "open(os.devnull, 'w')"])
def test_a_process_ends_whatever_was_made_of_its_streams(streams: str) -> None:
    code = (
        "import os, sys, threading\n"
        "from torchkeep.backend import process\n"
        "def child():\n"
        "    threading.Thread(target=threading.Event().wait).start()\n"
        f"    sys.stdout = sys.stderr = {streams}\n"
        "    getattr(sys.stdout, 'close', int)()\n"
        "    raise {}\n"
        "process.run_to_exit(child)\n"
    )
    for error, status in (("ValueError('x')", 1), ("SystemExit('why')", 1), ("SystemExit(7)", 7)):
        ended = subprocess.run([sys.executable, "-c", code.format(error)], timeout=60)
        assert ended.returncode == status
