"""The zygote: processes that have imported much and run nothing, from which workers fork.

It grows in *stages*, each a fork of the one before: `plain` has this project's own imports,
`torch` has torch, `ipex` has IPEX. A *model stage* has loaded one model version as well, so
that the workers forked from it share its weights; it alone has run a handler's code. A stage
answers requests on its control socket, one message each:

    {"fork": worker_id} + (connection, stdout, stderr)   -> {"pid": n}      a worker
    {"grow": stage}     + (control socket,)              -> {"pid": n}      the next stage
    {"grow_model": 0}   + (control, stdout, stderr, load) -> {"pid": n}     a model stage
    {"needs_of": [handler, model_dir, ipex]}             -> {"stage": name, "can_share": bool}

each with a number "n" that the reply repeats. A stage says {"ready": seconds} once, when its
imports are done; a model stage says {"loaded": [status, message]} instead, or
{"unsafe": why} where no fork of it could be trusted.
No secret ever passes through here: a later fork would find it in its memory. The frontend
writes a worker's secret into that worker's own connection before it hands over the other end.
"""

import array
import contextlib
import gc
import os
import socket
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from msgpack import Packer, unpackb  # by name: see runtime/messages.py

from torchkeep.backend import process
from torchkeep.backend.service import LoadFailed, Service
from torchkeep.backend.stages import needs_of
from torchkeep.backend.worker import Worker, load_service
from torchkeep.runtime.messages import Load, unpack, unpack_metadata
from torchkeep.runtime.processes import child_pids, keep_memory_private

MAX_CONTROL_BYTES = 1 << 16
MAX_DESCRIPTORS = 4


class Stage:
    """One process of the zygote, serving its control socket until the frontend closes it."""

    def __init__(self, name: str, control: socket.socket, frontend_pid: int, scratch: Path) -> None:
        self.name = name
        self._control = control
        self._frontend_pid = frontend_pid
        self._scratch = scratch  # for what imports write; the frontend removes it
        self._service: Service | None = None  # of a model stage; its workers begin with it

    def run(self, load: Load | None = None) -> None:
        """Import what the stage is for, or load the model, and serve."""
        process.reset_signals()
        process.adopt(self._frontend_pid)
        keep_memory_private()
        started = time.monotonic()
        if load is not None:
            reply = self._load(load)
        else:
            match self.name:
                case "torch":
                    import_torch(self._scratch)
                case "ipex":
                    import_ipex(self._scratch)
            reply = {"ready": time.monotonic() - started}
        # What is there by now is shared by all forks; a collection in one of them must not
        # touch (and so copy) every object of it.
        gc.collect()
        gc.freeze()
        self._reply(reply)
        if load is None or self._service is not None:
            self._serve()

    def _serve(self) -> None:
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
            self._reply({"n": request.get("n"), **reply})

    def _load(self, load: Load) -> dict[str, Any]:
        """Load the model, with one thread, as a fork of several could hang."""
        process.reseed()
        try:
            service = load_service(load)
        except LoadFailed as error:
            return {"loaded": [error.status, error.message]}
        try:
            self._check_fork_is_safe()
        except OSError as error:
            return {"unsafe": str(error)}
        self._service = service
        return {"loaded": [200, service.summary]}

    def _answer(self, request: dict[str, Any], descriptors: list[int]) -> dict[str, Any]:
        match request:
            case {"fork": str(worker_id)}:
                self._check_fork_is_safe()
                connection, stdout, stderr = descriptors

                def worker() -> None:
                    process.keep_only([connection, stdout, stderr])
                    process.redirect_stdio(stdout, stderr)
                    ours = socket.socket(fileno=connection)
                    ours.settimeout(None)  # a model that was loaded here may have set another
                    Worker(ours, worker_id, self._frontend_pid, self._service).run()

                return {"pid": process.fork_twice(worker)}
            case {"grow": str(name)}:
                self._check_fork_is_safe()
                (control,) = descriptors

                def stage() -> None:
                    process.keep_only([control])
                    ours = socket.socket(fileno=control)
                    Stage(name, ours, self._frontend_pid, self._scratch).run()

                return {"pid": process.fork_twice(stage)}
            case {"grow_model": _}:
                self._check_fork_is_safe()
                control, stdout, stderr, load_file = descriptors

                def model_stage() -> None:
                    process.keep_only([control, stdout, stderr, load_file])
                    process.redirect_stdio(stdout, stderr)
                    ours = socket.socket(fileno=control)
                    load = read_load(load_file)
                    Stage("model", ours, self._frontend_pid, self._scratch).run(load)

                return {"pid": process.fork_twice(model_stage)}
            case {"needs_of": [str(handler), str(model_dir), bool(has_ipex)]}:
                needs = needs_of(handler, Path(model_dir), has_ipex)
                return {"stage": needs.stage, "can_share": needs.can_share}
        raise AssertionError(f"the frontend sent {request!r}")

    def _check_fork_is_safe(self) -> None:
        # A fork copies only the thread that called it: the locks that others hold stay
        # locked for ever in the child, and OpenMP's own pool hangs at its first use. A helper
        # process (torch's compile workers are one) may take orders from a pipe that every
        # fork inherits.
        if (threads := process.thread_count()) != 1:
            raise OSError(f"the {self.name} stage has {threads} threads and cannot fork safely")
        if helpers := child_pids():
            raise OSError(f"the {self.name} stage has a helper process ({helpers[0]})")

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
        return (unpackb(data) if data else None), list(descriptors)

    def _reply(self, reply: dict[str, Any]) -> None:
        try:
            self._control.send(Packer().pack(reply))
        except BrokenPipeError:
            raise SystemExit(0) from None  # the frontend left


def read_load(descriptor: int) -> Load:
    """The Load that the frontend wrote into a file in memory: too long for one control message."""
    with open(descriptor, "rb") as file:
        file.seek(0)
        message = unpack(unpack_metadata(file.read()), [])
    assert isinstance(message, Load)  # the frontend is not a stranger to its own zygote
    return message


def import_torch(scratch: Path) -> None:
    """Import torch so that forks of this process stay safe and quick."""
    with _importing(scratch):
        try:
            import torch
        except ImportError:
            return  # a worker whose handler needs torch will say so in its own words
        del torch
        try:
            import torchvision  # noqa: F401
        except Exception as error:  # such as a torchvision built for another torch
            sys.stderr.write(f"torchvision does not import beside this torch: {error}\n")


def import_ipex(scratch: Path) -> None:
    """Import IPEX on top of torch; where it cannot be, workers go on without it."""
    with _importing(scratch):
        try:
            from torchkeep.backend import cpu
        except ImportError:
            return  # not even torch
        if problem := cpu.import_ipex():
            sys.stderr.write(f"IPEX is left out: {problem}\n")


@contextlib.contextmanager
def _importing(scratch: Path) -> Iterator[None]:
    """An environment in which imports start no thread, no process and leave no file behind."""
    # torch writes a module into a new temporary directory at import, and this process may
    # be killed before it can tidy up.
    tempfile.tempdir = str(scratch)
    # One thread for OpenBLAS (importing numpy starts its pool otherwise) and no compile
    # helper: IPEX beside `transformers` starts one that unpickles from a pipe which every
    # fork inherits.
    unset = [
        n for n in ("OPENBLAS_NUM_THREADS", "TORCHINDUCTOR_COMPILE_THREADS") if n not in os.environ
    ]
    for name in unset:
        os.environ[name] = "1"
    try:
        yield
    finally:
        for name in unset:
            del os.environ[name]
        tempfile.tempdir = None  # a worker finds its own
