"""A model whose worker processes follow a script, for the tests of what passes on the wire."""

import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ground import worker_ground

from torchkeep.frontend.child_process import ChildProcess
from torchkeep.frontend.metrics import Metrics
from torchkeep.frontend.model_spec import ModelSpec
from torchkeep.frontend.served_model import ServedModel
from torchkeep.frontend.zygote_client import Needs
from torchkeep.runtime.messages import InputParameter, RequestInput
from torchkeep.runtime.processes import become_subreaper

# A worker process that follows the protocol until its first batch, and then does `{deed}`.
WORKER = """
import socket, struct, sys, time
from torchkeep.runtime.messages import *
from torchkeep.runtime.wire import Wire

connection = socket.socket(fileno=int(sys.argv[1]))
secret = connection.recv(32, socket.MSG_WAITALL)
wire = Wire("worker", secret, sys.argv[2])

received = []

def receive():
    while not received:
        count = connection.recv_into(wire.buffer())
        if not count:
            sys.exit(0)
        received.extend(wire.received(count))
    return received.pop(0)

def sealed(message):
    return b"".join(bytes(part) for part in wire.seal(message))

def send(data):
    connection.sendall(data)

def chunk(*pieces, status=200):
    return sealed(Chunk(status, "said by the handler", [Prediction(*piece) for piece in pieces]))

def good(request, **more):
    ids = [one.request_id for one in request.requests]
    return Predictions(200, "ok", [Prediction(one, b"fine") for one in ids], **more)

receive()
BEFORE_LOAD
send(sealed(Loaded(200, "loaded")))
request = receive()
DEED
time.sleep(60)
"""
GOOD = "while True:\n    send(sealed(good(request)))\n    request = receive()"


@dataclass
class ScriptedZygote:
    """Starts a process that speaks the real wire and then misbehaves; later ones are good."""

    deeds: list[str]
    before_load: str = ""

    async def needs_of(self, handler: str, model_dir: str, with_ipex: bool) -> Needs:
        return Needs("plain", can_share=False)

    async def fork(self, stage: str, worker_id: str, descriptors: Sequence[int]) -> ChildProcess:
        become_subreaper()
        deed = self.deeds.pop(0) if self.deeds else GOOD
        script = WORKER.replace("DEED", deed).replace("BEFORE_LOAD", self.before_load)
        connection, stdout, stderr = descriptors
        process = subprocess.Popen(  # noqa: ASYNC220 - a test may wait for a fork
            [sys.executable, "-c", script, str(connection), worker_id],
            pass_fds=[connection],
            stdout=stdout,
            stderr=stderr,
            start_new_session=True,
        )
        process.returncode = 0  # reaped by its pidfd
        return ChildProcess(process.pid)


class NoDir:
    path = Path("/")

    def close(self) -> None:
        pass


def model_with(
    *deeds: str, metrics: Metrics | None = None, before_load: str = "", **spec: int
) -> ServedModel:
    zygote = ScriptedZygote(list(deeds), before_load)
    ground = worker_ground(zygote, metrics=metrics, max_response_bytes=1000)
    asked = ModelSpec("m", "1.0", "m.mar", "h.py", **spec)  # type: ignore[arg-type]
    return ServedModel(asked, NoDir(), ground)  # type: ignore[arg-type]


def request(name: str = "r") -> RequestInput:
    return RequestInput(name, {}, [InputParameter("body", b"in")])
