"""The ceiling: an archive's model and preprocessing in one pinned process per core, no server.

The handler is loaded by the very code that loads it in a worker, so whatever the worker does
to a model to make it faster happens here too. Run as a program this is one such process: it
says `ready`, then for each line with a number of seconds how many images it did in them.
"""

import os
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from torchkeep.runtime.allocator import find_allocator, with_allocator


class BareLoopFailed(Exception):
    """One of the processes ended before it was told to."""


class BareLoop:
    """One waiting process per core, which run at the same time when asked."""

    def __init__(self, processes: "list[subprocess.Popen[str]]") -> None:
        self._processes = processes

    def images_per_s(self, seconds: int) -> float:
        """All of them together."""
        for process in self._processes:
            assert process.stdin is not None
            process.stdin.write(f"{seconds}\n")
            process.stdin.flush()
        return sum(float(_line(process)) for process in self._processes)


@contextmanager
def bare_loop(archive: Path, handler: str, payload: Path) -> Iterator[BareLoop]:
    """Start the processes; they are idle until asked, and end with the block."""
    processes: list[subprocess.Popen[str]] = []
    # A worker's allocator too: with glibc's, every call maps its large tensors anew.
    environment = with_allocator(os.environ, find_allocator()[1])
    with tempfile.TemporaryDirectory(prefix="bench-") as directory, ExitStack() as stack:
        with zipfile.ZipFile(archive) as packed:
            packed.extractall(directory)
        for core in sorted(os.sched_getaffinity(0)):
            command = [sys.executable, "-P", __file__, directory, handler, str(payload), str(core)]
            process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                env=environment,
                text=True,
            )
            stack.enter_context(process)  # closes its input, which ends it, and waits
            processes.append(process)
        for process in processes:
            _line(process)
        yield BareLoop(processes)


def _line(process: "subprocess.Popen[str]") -> str:
    assert process.stdout is not None
    line = process.stdout.readline()
    if not line:
        raise BareLoopFailed("a bare loop ended by itself, its messages are above")
    return line


def main(model_dir: str, handler: str, payload: str, core: str) -> None:
    reports = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # what the handler, or the engine that runs its model, has to say
    os.sched_setaffinity(0, [int(core)])
    os.environ["OMP_NUM_THREADS"] = "1"
    import torch

    torch.set_num_threads(1)
    from torchkeep.backend.service import Service
    from torchkeep.runtime.messages import Load

    # Read first: loading makes the model's directory the working directory.
    rows = [{"body": bytearray(Path(payload).read_bytes())}]
    load = Load(
        model_name="bare",
        model_version="1.0",
        model_dir=model_dir,
        handler=handler,
        envelope="",
        batch_size=1,
        limit_max_image_pixels=True,
        decode_input_request=True,
        environment={},
    )
    # A worker only ever calls `handle`; the two steps that are compared are the object's own.
    instance: Any = getattr(Service.load(load)._entry_point, "__self__", None)
    for _ in range(3):
        instance.inference(instance.preprocess(rows))
    reports.write("ready\n")
    for line in sys.stdin:
        count, started = 0, time.perf_counter()
        while (elapsed := time.perf_counter() - started) < float(line):
            instance.inference(instance.preprocess(rows))
            count += 1
        reports.write(f"{count / elapsed}\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
