"""What handlers know as `context.cl_socket`: it sends pieces of answers that go on."""

import os
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from torchkeep.backend.failures import failure
from torchkeep.backend.handler_output import (
    checked_status,
    checked_text,
    encode_output,
    to_prediction,
)
from torchkeep.runtime.messages import Chunk, Prediction, RequestInput

if TYPE_CHECKING:
    from ts.context import RequestProcessor


class PieceSender:
    """Open while a batch is with the handler, whose threads may send too.

    What is wrong with a piece is raised into the handler. Without a connection, which a
    worker has only once it serves, pieces are checked and go nowhere.
    """

    def __init__(self, tells_errors: bool = True) -> None:
        self._tells_errors = tells_errors
        self._send: Callable[[Chunk], None] | None = None
        self._requests: Sequence[RequestInput] = ()
        self._processors: Sequence[RequestProcessor] = ()
        self._process_id = 0
        # A piece that a thread sends must not come after the answer that ends the batch.
        self._lock = threading.Lock()

    def connect(self, send: Callable[[Chunk], None]) -> None:
        """From now on pieces reach the frontend, from this process only."""
        self._send = send
        self._process_id = os.getpid()

    def begin(
        self, requests: Sequence[RequestInput], processors: "Sequence[RequestProcessor]"
    ) -> None:
        """A batch goes to the handler; the processors are those of its requests."""
        self._requests, self._processors = requests, processors

    def end(self) -> None:
        """The handler is done with it."""
        with self._lock:
            self._requests = self._processors = ()

    def send_pieces(
        self, pieces: Any, request_ids: Mapping[int, str], message: Any, code: Any
    ) -> None:
        """One piece for each of these requests of the batch: `pieces[index]`.

        A code other than 200 answers them with that code and message instead.
        """
        status, text = checked_status(code), checked_text(message)
        # TorchServe: what `pieces` holds beyond the requests is not looked at.
        bodies = encode_output([pieces[index] for index in request_ids], len(request_ids))
        with self._lock:
            known = {
                request.request_id: processor
                for request, processor in zip(self._requests, self._processors, strict=True)
            }
            if not known.keys() >= set(request_ids.values()):
                raise ValueError("a piece for a request that is not, or no longer, in the batch")
            items = [
                to_prediction(request_id, body, known[request_id])
                for request_id, body in zip(request_ids.values(), bodies, strict=True)
            ]
            if items and self._send is not None:
                self._check_process()
                self._send(Chunk(status, text, items))

    def fail(self, request_id: str, error: Exception) -> None:
        """Answer this request of the batch with an error, as if the handler had raised it."""
        status, text = failure(error, self._tells_errors)
        if status == 200:
            raise ValueError("a request can only fail with a status other than 200")
        with self._lock:
            if all(request.request_id != request_id for request in self._requests):
                raise ValueError("a request that is not, or no longer, in the batch cannot fail")
            if self._send is not None:
                self._check_process()
                self._send(Chunk(status, text, [Prediction(request_id, b"error")]))

    def _check_process(self) -> None:
        # A forked process would seal with the keys and the record number of this one.
        if os.getpid() != self._process_id:
            raise RuntimeError("only the worker process itself can send pieces, no fork of it")
