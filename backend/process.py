"""What a forked process does to itself before anything else: Linux calls, in one place."""

import contextlib
import os
import random
import secrets
import signal
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from typing import NoReturn

from torchkeep.runtime.cores import threads_of_environment
from torchkeep.runtime.kernel import prctl, syscall

_PR_SET_PDEATHSIG = 1
_CLOSE_RANGE = 436
_LAST_DESCRIPTOR = 0xFFFFFFFF
_PARENT_DEADLINE_S = 10.0


def fork_twice(child: Callable[[], object]) -> int:
    """Run `child` in a grandchild and return its pid.

    The process in between ends at once, so the kernel gives the grandchild to the nearest
    subreaper: the frontend, which then learns its exit status from a pidfd.

    Raises OSError when the kernel refuses a process.
    """
    read_end, write_end = os.pipe()
    middle = os.fork()
    if middle == 0:
        try:
            pid = os.fork()
            if pid == 0:
                os.close(read_end)
                os.close(write_end)
                run_to_exit(child)
            os.write(write_end, str(pid).encode())
        finally:
            os._exit(0)
    os.close(write_end)
    try:
        os.waitpid(middle, 0)
        text = os.read(read_end, 32)
    finally:
        os.close(read_end)
    if not text:
        raise OSError("the kernel refused a process")
    return int(text)


def run_to_exit(child: Callable[[], object]) -> NoReturn:
    """Run `child` and end the process, as the interpreter would: this never returns."""
    status = 1
    try:
        child()
        status = 0
    except SystemExit as error:
        status = _exit_status(error)
    except BaseException:
        # What a handler has made of these streams does not keep this process from its end.
        with contextlib.suppress(Exception):
            # TorchServe: the line that its users' tools look for in the log.
            sys.stdout.write("Backend worker process died.\n")
        with contextlib.suppress(Exception):
            sys.excepthook(*sys.exc_info())
    finally:
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(Exception):
                stream.flush()
        os._exit(status)


def _exit_status(error: SystemExit) -> int:
    if error.code is None:
        return 0
    if isinstance(error.code, int):
        return error.code & 0xFF
    with contextlib.suppress(Exception):
        sys.stderr.write(f"{error.code}\n")
    return 1


def adopt(frontend_pid: int) -> None:
    """Wait until the frontend is the parent, then die with it."""
    deadline = time.monotonic() + _PARENT_DEADLINE_S
    while os.getppid() != frontend_pid:
        if not os.path.exists(f"/proc/{frontend_pid}"):  # killed in its first moments
            raise SystemExit("the frontend is gone")
        if time.monotonic() > deadline:
            raise SystemExit("the frontend did not become the parent of this process")
        time.sleep(0.0005)
    die_with(frontend_pid)


def die_with(parent_pid: int) -> None:
    """End when the parent does. The kernel forgets this when the user id changes."""
    prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent_pid:  # it died before the line above
        raise SystemExit("the frontend is gone")


def keep_only(descriptors: Iterable[int]) -> None:
    """Close every descriptor but these and 0 to 2."""
    # Not by /proc/self/fd: a fork of a confined stage has no /proc of its own.
    first = 3
    for kept in [*sorted({*descriptors} - {0, 1, 2}), _LAST_DESCRIPTOR]:
        if first < kept:
            syscall(_CLOSE_RANGE, first, kept - (kept != _LAST_DESCRIPTOR), 0)
        first = kept + 1


def redirect_stdio(stdout: int, stderr: int) -> None:
    """Nothing to read, and output that goes to the frontend line by line."""
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.dup2(stdout, 1)
    os.dup2(stderr, 2)
    for descriptor in (null, stdout, stderr):
        os.close(descriptor)
    sys.stdin = open(0, closefd=False)  # noqa: SIM115 - lives as long as the process
    sys.stdout = open(1, "w", buffering=1, closefd=False, errors="backslashreplace")  # noqa: SIM115
    sys.stderr = open(2, "w", buffering=1, closefd=False, errors="backslashreplace")  # noqa: SIM115


@contextlib.contextmanager
def quiet_stderr() -> Iterator[None]:
    """Hold back what is written to standard error, and write it after all if the body raises.

    IPEX's libraries write a dozen lines at each import, of kernels that they replace on purpose.
    """
    sys.stderr.flush()
    stderr = os.dup(2)
    held = os.memfd_create("stderr")
    os.dup2(held, 2)
    try:
        yield
    except BaseException:
        os.lseek(held, 0, os.SEEK_SET)
        os.write(stderr, os.read(held, 1 << 16))
        raise
    finally:
        sys.stderr.flush()
        os.dup2(stderr, 2)
        os.close(stderr)
        os.close(held)


def reset_signals() -> None:
    """The terminal's Ctrl-C is the frontend's to answer; its own session keeps it away."""
    os.setsid()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)


def reseed() -> None:
    """Siblings fork from one state: without this they would draw the same numbers."""
    random.seed(secrets.randbits(256))
    if "numpy" in sys.modules:
        import numpy

        numpy.random.seed(secrets.randbits(32))
    if "torch" in sys.modules:
        import torch

        torch.manual_seed(secrets.randbits(63))


def set_threads(count: int) -> None:
    """Compute with so many threads, unless the user's own OMP_NUM_THREADS decides.

    Called before any tensor exists: weights that IPEX packs for one number of threads give
    wrong results with another.
    """
    os.environ.setdefault("OMP_NUM_THREADS", str(count))  # read where torch is imported later
    if "torch" in sys.modules:
        import torch

        torch.set_num_threads(threads_of_environment(os.environ) or count)


def compute_threads() -> int:
    """The threads that torch computes with now; 0 in a process that has not imported it."""
    # An archive may hold a torch.py of its own.
    count = getattr(sys.modules.get("torch"), "get_num_threads", lambda: 0)
    return int(count())


def thread_count() -> int:
    """Threads of this process, those that no Python code knows of included."""
    return len(os.listdir("/proc/self/task"))
