"""The zygote: processes that have imported much and run nothing, from which workers fork.

It grows in *stages*, each a fork of the one before: `plain` has this project's own imports,
`torch` has torch. A stage answers requests on its control socket, one message each:

    {"fork": worker_id} + (connection, stdout, stderr)   -> {"pid": n}      a worker
    {"grow": stage}     + (control socket,)              -> {"pid": n}      the next stage
    {"stage_for": [handler, model_dir]}                  -> {"stage": name}

and says {"ready": seconds} once, when its imports are done. No secret ever passes through
here: a later fork would find it in its memory. The frontend writes a worker's secret into
that worker's own connection before it hands over the other end.
"""

import array
import gc
import os
import socket
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import msgpack

from torchkeep.backend import process
from torchkeep.backend.stages import required_stage
from torchkeep.backend.worker import Worker

MAX_CONTROL_BYTES = 1 << 16
MAX_DESCRIPTORS = 4


class Stage:
    """One process of the zygote, serving its control socket until the frontend closes it."""

    def __init__(self, name: str, control: socket.socket, frontend_pid: int, scratch: Path) -> None:
        self.name = name
        self._control = control
        self._frontend_pid = frontend_pid
        self._scratch = scratch  # for what imports write; the frontend removes it

    def run(self) -> None:
        process.reset_signals()
        process.adopt(self._frontend_pid)
        process.no_core_dumps()
        started = time.monotonic()
        if self.name == "torch":
            import_torch(self._scratch)
        # What is imported by now is shared by all forks; a collection in one of them must
        # not touch (and so copy) every object of it.
        gc.collect()
        gc.freeze()
        self._reply({"ready": time.monotonic() - started})
        while True:
            request, descriptors = self._receive()
            if request is None:
                return
            try:
                reply = self._answer(request, descriptors)
            except OSError as error:
                reply = {"error": str(error)}
            finally:
                for descriptor in descriptors:
                    os.close(descriptor)
            self._reply(reply)

    def _answer(self, request: dict[str, Any], descriptors: list[int]) -> dict[str, Any]:
        match request:
            case {"fork": str(worker_id)}:
                self._check_fork_is_safe()
                connection, stdout, stderr = descriptors

                def worker() -> None:
                    process.keep_only([connection, stdout, stderr])
                    process.redirect_stdio(stdout, stderr)
                    Worker(socket.socket(fileno=connection), worker_id, self._frontend_pid).run()

                return {"pid": process.fork_twice(worker)}
            case {"grow": str(name)}:
                self._check_fork_is_safe()
                (control,) = descriptors

                def stage() -> None:
                    process.keep_only([control])
                    ours = socket.socket(fileno=control)
                    Stage(name, ours, self._frontend_pid, self._scratch).run()

                return {"pid": process.fork_twice(stage)}
            case {"stage_for": [str(handler), str(model_dir)]}:
                return {"stage": required_stage(handler, Path(model_dir))}
        raise AssertionError(f"the frontend sent {request!r}")

    def _check_fork_is_safe(self) -> None:
        # A fork copies only the thread that called it: the locks that others hold stay
        # locked for ever in the child, and OpenMP's own pool hangs at its first use.
        if (threads := process.thread_count()) != 1:
            raise OSError(f"the {self.name} stage has {threads} threads and cannot fork safely")

    def _receive(self) -> tuple[dict[str, Any] | None, list[int]]:
        try:
            data, ancillary, _, _ = self._control.recvmsg(
                MAX_CONTROL_BYTES, socket.CMSG_SPACE(MAX_DESCRIPTORS * 4), socket.MSG_CMSG_CLOEXEC
            )
        except ConnectionResetError:
            return None, []  # the frontend left with a reply of ours unread
        descriptors = array.array("i")
        for level, kind, payload in ancillary:
            if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                descriptors.frombytes(payload[: len(payload) - len(payload) % 4])
        return (msgpack.unpackb(data) if data else None), list(descriptors)

    def _reply(self, reply: dict[str, Any]) -> None:
        try:
            self._control.send(msgpack.packb(reply))
        except BrokenPipeError:
            raise SystemExit(0) from None  # the frontend left


def import_torch(scratch: Path) -> None:
    """Import torch so that forks of this process stay safe and quick."""
    # torch writes a module into a new temporary directory at import, and this process may
    # be killed before it can tidy up.
    tempfile.tempdir = str(scratch)
    # One thread for OpenBLAS (importing numpy starts its pool otherwise) and no compile
    # helper: a fork inherits neither threads nor the right to another's pipe.
    unset = [
        n for n in ("OPENBLAS_NUM_THREADS", "TORCHINDUCTOR_COMPILE_THREADS") if n not in os.environ
    ]
    for name in unset:
        os.environ[name] = "1"
    try:
        import torch
    except ImportError:
        return  # a worker whose handler needs torch will say so in its own words
    for name in unset:
        del os.environ[name]
    del torch
    for module in ("torchvision", "torchkeep.backend.service"):
        try:
            __import__(module)
        except Exception as error:  # such as a torchvision built for another torch
            sys.stderr.write(f"{module} does not import beside this torch: {error}\n")
    tempfile.tempdir = None  # a worker finds its own
