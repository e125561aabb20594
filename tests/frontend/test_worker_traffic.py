"""What passes between the frontend and a worker, read by somebody in the middle."""

import asyncio
import os
import socket
import threading
from pathlib import Path

from torchkeep.frontend.worker_connection import WorkerConnection
from torchkeep.frontend.zygote_client import ZygoteClient
from torchkeep.runtime.messages import (
    InputParameter,
    Load,
    Loaded,
    Predict,
    Predictions,
    RequestInput,
)
from torchkeep.runtime.wire import SECRET_BYTES

HANDLER = """
def handle(data, context):
    if data is None:
        return None
    return ["marker-of-an-" + "answer"] * len(data)
"""
MARKERS = (b"marker-of-an-input", b"marker-of-an-answer", b"marker-of-a-header", b"marked-model")


class Middle:
    """Passes bytes between two sockets, and remembers them."""

    def __init__(self, one: socket.socket, other: socket.socket) -> None:
        self.seen = bytearray()
        self._threads = [
            threading.Thread(target=self._pass, args=pair) for pair in ((one, other), (other, one))
        ]
        for thread in self._threads:
            thread.start()

    def join(self) -> None:
        for thread in self._threads:
            thread.join()

    def _pass(self, source: socket.socket, target: socket.socket) -> None:
        while data := source.recv(1 << 16):
            self.seen += data
            target.sendall(data)
        target.shutdown(socket.SHUT_WR)


def test_traffic_with_a_worker_holds_no_marker_of_model_input_or_answer(tmp_path: Path) -> None:
    (tmp_path / "marked-model.py").write_text(HANDLER)
    load = Load(
        "marked-model", "1.0", str(tmp_path), "marked-model.py", "", 1, True, True, dict(os.environ)
    )
    request = RequestInput(
        "r0", {"h": "marker-of-a-header"}, [InputParameter("body", b"marker-of-an-input")]
    )

    async def scenario() -> bytes:
        async with asyncio.timeout(60), ZygoteClient() as zygote:
            connection = WorkerConnection("9000", 1 << 20, lambda _: None, lambda _: None)
            ours, theirs = await connection.open(), socket.socketpair()
            with ours, theirs[0], theirs[1]:
                middle = Middle(ours, theirs[0])
                null = os.open(os.devnull, os.O_WRONLY)
                child = await zygote.fork("plain", "9000", [theirs[1].fileno(), null, null])
                theirs[1].close()
                os.close(null)
                assert isinstance(await connection.exchange(load, 60), Loaded)
                answer = await connection.exchange(Predict([request]), 60)
                assert isinstance(answer, Predictions)
                assert bytes(answer.items[0].body) == b"marker-of-an-answer"
                connection.close()
                await child.exited
                await asyncio.to_thread(middle.join)
                return bytes(middle.seen)

    seen = asyncio.run(scenario())
    assert len(seen) > SECRET_BYTES + 500
    assert [marker for marker in MARKERS if marker in seen] == []
