"""The ranks of a parallel model: one worker, several processes, as torchrun would start them.

    frontend <= sealed wire => rank 0 <= sealed wires => ranks 1, 2, ...

The worker is rank 0, and the only one that the frontend knows. Before anything is loaded, and
after it is confined, it forks the others: so one sandbox holds them all, and they end with it.
A rank finds the environment of torchrun, and `init_process_group` its peers by that. The store
where they meet is rank 0's, on loopback, at a socket that is bound before there is a rank.

The end of any rank is the end of the worker; the frontend starts a new one.
"""

import os
import secrets
import select
import signal
import socket
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from torchkeep.backend import process
from torchkeep.backend.sending import send_all
from torchkeep.backend.service import LoadFailed, Service
from torchkeep.runtime.errors import WireError
from torchkeep.runtime.messages import Load, Loaded, Message, Predict
from torchkeep.runtime.processes import keep_memory_private
from torchkeep.runtime.wire import SECRET_BYTES, Wire

LOOPBACK = "127.0.0.1"
STATUS_WAIT_S = 1.0  # for a rank whose connection has ended to end itself
KILLED = 137  # the exit status that stands for a lack of memory
NO_NETWORK = (
    "the ranks of a parallelType find each other by TCP on loopback, which the sandbox refuses:"
    " model-config.yaml must say sandbox: {network: true}, and config.properties"
    " sandbox_allow=network"
)


class Ranks:
    """The other ranks, seen from rank 0."""

    def __init__(self, load: Load, send: Callable[[Message], None]) -> None:
        self._load = load
        self._size = load.parallel.world_size
        self._send = send  # to the frontend
        self._peers: list[_Peer] = []
        self._loading = threading.Lock()  # held while this thread alone may send
        self._is_loaded = False
        self._store: Any = None  # where the ranks meet; it ends with this object

    def load(self) -> Service:
        """Fork the others and load the model in all; returns rank 0's. Raises LoadFailed."""
        listener = _listen()
        try:
            for rank in range(1, self._size):
                self._peers.append(self._fork(rank, listener))
            self._store = _serve_store(listener)
        finally:
            listener.close()
        threading.Thread(target=self._watch, name="ranks", daemon=True).start()
        os.environ.update(self._environment(0, self._port))
        process.set_threads(self._load.threads)
        service = Service.load(self._load)
        for peer in self._peers:
            peer.is_loaded.wait()
        with self._loading:
            self._is_loaded = True
        return service

    def follow(self, predict: Predict) -> None:
        """Have the others compute this batch as well, where that is their way."""
        if not self._load.parallel.asks_all:
            return
        for peer in self._peers:
            # One that has ended is the watcher's affair, which ends this process.
            with suppress(BrokenPipeError, ConnectionResetError):
                send_all(peer.connection, peer.wire.seal(predict))

    def _fork(self, rank: int, listener: socket.socket) -> "_Peer":
        self._port = listener.getsockname()[1]
        ours, theirs = socket.socketpair()
        secret, name = secrets.token_bytes(SECRET_BYTES), f"rank {rank}"
        parent = os.getpid()
        sys.stdout.flush()
        sys.stderr.flush()
        pid = os.fork()
        if pid == 0:
            process.run_to_exit(lambda: self._run(rank, theirs, secret, parent))
        theirs.close()
        return _Peer(rank, pid, ours, Wire("frontend", secret, name))

    def _run(self, rank: int, connection: socket.socket, secret: bytes, parent: int) -> None:
        """The life of another rank: load, then compute along until rank 0 lets go."""
        process.die_with(parent)
        keep_memory_private()
        process.keep_only([connection.fileno()])
        os.environ.update(self._environment(rank, self._port))
        process.set_threads(self._load.threads)
        wire = Wire("worker", secret, f"rank {rank}")
        try:
            service = Service.load(self._load)
        except LoadFailed as error:
            failure = Loaded(error.status, f"rank {rank}: {error.message}")
            send_all(connection, wire.seal(failure))
            raise SystemExit(1) from None
        send_all(connection, wire.seal(Loaded(200, service.summary)))
        while count := connection.recv_into(wire.buffer()):
            for message in wire.received(count):
                assert isinstance(message, Predict)
                service.follow(message.requests)

    def _environment(self, rank: int, port: int) -> dict[str, str]:
        """What torchrun tells a process, and that traffic stays on this machine."""
        size = str(self._size)
        told = {
            "RANK": str(rank),
            "LOCAL_RANK": str(rank),
            "ROLE_RANK": str(rank),
            "GROUP_RANK": "0",
            "WORLD_SIZE": size,
            "LOCAL_WORLD_SIZE": size,
            "ROLE_WORLD_SIZE": size,
            "GROUP_WORLD_SIZE": "1",
            "ROLE_NAME": "default",
            "MASTER_ADDR": LOOPBACK,
            "MASTER_PORT": str(port),
            "TORCHELASTIC_RESTART_COUNT": "0",
            # TorchServe allows torchrun one restart; here it is the worker that starts again.
            "TORCHELASTIC_MAX_RESTARTS": "1",
            "TORCHELASTIC_RUN_ID": self._load.parallel.run_id,
            "TORCHELASTIC_USE_AGENT_STORE": "True",
            "TORCH_NCCL_ASYNC_ERROR_HANDLING": "1",
            "LOGLEVEL": "INFO",  # TorchServe starts torchrun with it
        }
        for name in ("GLOO_SOCKET_IFNAME", "TP_SOCKET_IFNAME"):
            if name not in self._load.environment:
                told[name] = "lo"
        return told

    def _watch(self) -> None:
        """Read what ranks say of their load, and end this process with the first that ends."""
        waiting = {peer.connection: peer for peer in self._peers}
        while True:
            for connection in select.select(list(waiting), [], [])[0]:
                peer = waiting[connection]
                for message in peer.heard():
                    if isinstance(message, Loaded) and message.status == 200:
                        peer.is_loaded.set()
                    else:
                        self._end(peer, message)

    def _end(self, peer: "_Peer", message: Message | None) -> None:
        """Tell the frontend why, while it waits for the load, and go."""
        status = peer.exit_status()
        text = f"rank {peer.rank} ended with status {status}"
        with self._loading:
            if isinstance(message, Loaded) and not self._is_loaded:
                with suppress(SystemExit):
                    self._send(message)
        sys.stderr.write(f"{text}, and the worker with it\n")
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(KILLED if status == -signal.SIGKILL else 1)


class _Peer:
    """One other rank, as rank 0 sees it."""

    def __init__(self, rank: int, pid: int, connection: socket.socket, wire: Wire) -> None:
        self.rank = rank
        self.connection = connection
        self.wire = wire
        self.is_loaded = threading.Event()
        self._pid = pid

    def heard(self) -> list[Message | None]:
        """Its messages since the last call; None is its end."""
        try:
            count = self.connection.recv_into(self.wire.buffer())
            return [*self.wire.received(count)] if count else [None]
        except (ConnectionResetError, WireError):
            return [None]

    def exit_status(self) -> int:
        """As `subprocess` counts it; 0 for a rank that closed its connection and lives."""
        with suppress(OSError):
            pidfd = os.pidfd_open(self._pid)
            select.select([pidfd], [], [], STATUS_WAIT_S)
            pid, status = os.waitpid(self._pid, os.WNOHANG)
            return os.waitstatus_to_exitcode(status) if pid else 0
        return 1


def _listen() -> socket.socket:
    """Where the ranks will meet. Raises LoadFailed where the sandbox has no network."""
    try:
        listener = socket.socket()
        listener.bind((LOOPBACK, 0))
        listener.listen()
    except PermissionError as error:
        raise LoadFailed(500, NO_NETWORK) from error
    except OSError as error:
        raise LoadFailed(500, f"no port for the ranks of a parallelType: {error}") from error
    return listener


def _serve_store(listener: socket.socket) -> Any:
    """torch's key-value store, in a thread of its own, at this socket."""
    try:
        from torch.distributed import TCPStore
    except ImportError as error:
        raise LoadFailed(500, f"a parallelType needs torch.distributed: {error}") from error
    port, descriptor = listener.getsockname()[1], listener.detach()
    return TCPStore(
        LOOPBACK,
        port,
        is_master=True,
        wait_for_workers=False,
        multi_tenant=False,
        master_listen_fd=descriptor,
    )
