"""Async handlers: `handle` is a coroutine, and each batch has a context of its own."""

import asyncio
import copy
import inspect
import time
from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING

from torchkeep.backend.failures import PREDICTION_FAILED, print_traceback
from torchkeep.backend.handler_output import ProtocolViolation
from torchkeep.backend.piece_sender import PieceSender
from torchkeep.backend.service import Service
from torchkeep.runtime.messages import Predictions, RequestInput

if TYPE_CHECKING:
    from ts.context import Context


class ConcurrentService(Service):
    """Answers batches side by side; what one fails of is nothing to the others."""

    @cached_property
    def loop(self) -> asyncio.AbstractEventLoop:
        """The one loop of this process: what a warm-up left there goes on when it serves."""
        return asyncio.new_event_loop()

    def predict(self, requests: Sequence[RequestInput]) -> Predictions:
        """Answer one batch, while the loop does not run."""
        return self.loop.run_until_complete(self.answer(requests))

    async def answer(self, requests: Sequence[RequestInput]) -> Predictions:
        """Answer one batch. A handler that is no coroutine is welcome, and holds up the others."""
        pieces = PieceSender(self._tells_errors)
        if self._send is not None:
            pieces.connect(self._send)
        started = time.perf_counter()
        try:
            context = self._copied_context(pieces)
            output = self._entry_point(self._set_requests(context, requests), context)
            if inspect.isawaitable(output):
                output = await output
            elapsed_ms = (time.perf_counter() - started) * 1000
            bodies = self._bodies(output, len(requests))
        except asyncio.CancelledError as error:
            if not _is_cancelled():  # it was something that the handler awaited
                print_traceback(error)
            return self.unanswered(requests)
        except Exception as error:
            return self._failed(requests, error)
        finally:
            pieces.end()
        try:
            return self._answered(requests, bodies, context.request_processor, elapsed_ms)
        except ProtocolViolation as error:
            # It would end the worker, and with it what others wait for.
            return self._failed(requests, error)

    def _copied_context(self, pieces: PieceSender) -> "Context":
        """TorchServe: a deep copy for each call. What has been recorded stays common."""
        metrics = copy.copy(self._context.metrics)
        kept = {id(self._context.metrics): metrics, id(self._context.cl_socket): pieces}
        return copy.deepcopy(self._context, kept)

    def unanswered(self, requests: Sequence[RequestInput]) -> Predictions:
        """What stands for the answer to a batch that was cancelled: mostly nobody reads it."""
        return self._refused(requests, 503, PREDICTION_FAILED)


def _is_cancelled() -> bool:
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0
