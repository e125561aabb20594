"""The worker: one process, one socket, one model, one blocking loop.

Messages arrive sealed; nothing is parsed before it is opened. The end of the stream means
that the frontend let go of this worker, and so does a frame that does not open: then the
process ends and the frontend decides what happens next. Where the handler is a coroutine,
`ConcurrentWorker` takes over once the model is loaded.
"""

import os
import platform
import socket
import sys
from collections.abc import Mapping
from time import perf_counter

from torchkeep.backend import process
from torchkeep.backend.concurrent_service import ConcurrentService
from torchkeep.backend.concurrent_worker import ConcurrentWorker
from torchkeep.backend.confine import confine, confine_fork
from torchkeep.backend.handler_logging import set_up_logging
from torchkeep.backend.profiling import Profiler, is_profiling_asked_for
from torchkeep.backend.ranks import Ranks
from torchkeep.backend.sending import FORKED, send_all
from torchkeep.backend.service import LoadFailed, Service
from torchkeep.backend.step_service import StepService
from torchkeep.runtime.errors import WireError
from torchkeep.runtime.messages import Load, Loaded, Message, Predict, Way
from torchkeep.runtime.processes import become_subreaper, keep_memory_private
from torchkeep.runtime.wire import SECRET_BYTES, Wire

# Waking a process takes longer than answering a small request. While the next one keeps coming
# within the first time, the worker looks out for it, for at most the second, before it sleeps.
SOON_S = 0.0005
LOOKOUT_S = 0.0003

SERVICES: Mapping[Way, type[Service]] = {
    "batches": Service,
    "steps": StepService,
    "concurrent": ConcurrentService,
}


class Worker:
    """Serves one connection until it ends."""

    def __init__(
        self,
        connection: socket.socket,
        worker_id: str,
        frontend_pid: int,
        shared: Service | None = None,
    ) -> None:
        self._connection = connection
        self._worker_id = worker_id
        self._frontend_pid = frontend_pid
        self._shared = shared  # loaded by the stage that this process was forked from
        self._service: Service | None = None
        self._ranks: Ranks | None = None  # the other processes of a parallel model
        self._profiler: Profiler | None = None
        self._looks_out = False

    def run(self) -> None:
        process.reset_signals()
        process.adopt(self._frontend_pid)
        # What the handler leaves behind stays ours, so that it ends when we do and not before:
        # the frontend, next in line, kills whatever it inherits from a worker.
        become_subreaper()
        keep_memory_private()
        process.reseed()
        self._wire = Wire("worker", self._receive_secret(), self._worker_id)
        os.register_at_fork(after_in_child=self._leave_to_parent)
        _say(
            f"[PID]{os.getpid()}",
            "Torch worker started.",
            f"Python runtime: {platform.python_version()}",
            f"Connection accepted: {self._worker_id}.",
        )
        while True:
            try:
                count = self._receive()
            except ConnectionResetError:
                count = 0
            if count == 0:
                _say("Frontend disconnected.")
                return
            try:
                messages = self._wire.received(count)
            except WireError as error:
                raise SystemExit(f"The frontend's frame was refused: {error}") from None
            for message in messages:
                self._send(self._answer(message))
            if isinstance(self._service, ConcurrentService):
                ConcurrentWorker(self._connection, self._wire, self._service).run()
                return

    def _leave_to_parent(self) -> None:
        """In a fork that the handler made: the frontend is none of its business.

        It may come back from the handler like the worker itself, and answer a second time.
        """
        self._connection.close()
        self._wire.forget_keys()

    def _receive(self) -> int:
        """Fill the wire's buffer; the number of bytes that came, 0 at the end of the stream."""
        buffer, began = self._wire.buffer(), perf_counter()
        while self._looks_out and perf_counter() - began < LOOKOUT_S:
            try:
                return self._connection.recv_into(buffer, 0, socket.MSG_DONTWAIT)
            except BlockingIOError:
                os.sched_yield()  # whoever else can use this core has it
        count = self._connection.recv_into(buffer)
        # On a single core nobody could send anything meanwhile.
        self._looks_out = perf_counter() - began < SOON_S and len(os.sched_getaffinity(0)) > 1
        return count

    def _answer(self, message: Message) -> Message:
        match message:
            case Load():
                return self._load(message)
            case Predict(requests) if self._service is not None:
                if self._ranks is not None:
                    self._ranks.follow(message)
                if self._profiler is not None:
                    return self._profiler.call(self._service.predict, requests)
                return self._service.predict(requests)
        raise SystemExit(f"The frontend sent an unexpected {type(message).__name__} message")

    def _load(self, load: Load) -> Loaded:
        try:
            if self._shared is not None:
                confine_fork(load.sandbox)
                process.set_threads(load.threads)
                self._shared.rehearse()
                self._service = self._shared
            elif load.parallel.world_size > 1:
                _enter(load)
                self._ranks = Ranks(load, self._send)
                self._service = self._ranks.load()
            else:
                self._service = load_service(load)
        except LoadFailed as error:
            return Loaded(error.status, error.message)
        service = self._service
        service.connect(self._send)
        if is_profiling_asked_for():
            self._profiler = Profiler()
        if self._ranks is not None:
            return Loaded(200, service.summary)  # no threads: it alone could be pinned
        return Loaded(200, service.summary, process.compute_threads(), service.engine)

    def _receive_secret(self) -> bytes:
        """The 32 bytes that were in the socket before this process existed."""
        secret = b""
        while len(secret) < SECRET_BYTES:
            piece = self._connection.recv(SECRET_BYTES - len(secret))
            if not piece:
                raise SystemExit("The frontend left before it sent a secret")
            secret += piece
        return secret

    def _send(self, message: Message) -> None:
        try:
            send_all(self._connection, self._wire.seal(message))
        except (BrokenPipeError, ConnectionResetError):
            raise SystemExit(0) from None  # the frontend no longer wants the answer
        except WireError:
            raise SystemExit(FORKED) from None


def _say(*lines: str) -> None:
    """TorchServe: lines that its users' tools look for in the model log."""
    sys.stdout.write("".join(f"{line}\n" for line in lines))


def load_service(load: Load) -> Service:
    """Make this process the model's: its environment, its threads, its handler.

    Raises LoadFailed.
    """
    _enter(load)
    process.set_threads(load.threads)
    return SERVICES[load.way].load(load)


def _enter(load: Load) -> None:
    os.environ.clear()
    os.environ.update(load.environment)
    set_up_logging()
    confine(load.sandbox, load.model_dir, lists_interfaces=load.parallel.world_size > 1)
