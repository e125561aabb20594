"""Continuous batching, from the handler's side: after each step it says who is finished."""

from collections.abc import Sequence
from typing import Any

from torchkeep.backend.service import Service
from torchkeep.runtime.messages import Chunk, Predictions, RequestInput


class StepService(Service):
    """Asks `context.stopping_criteria`, one for each request of the step, about its result.

    True ends an answer, False makes the result a piece of one that goes on. None, or no
    criterion, means that it is the whole answer. A criterion that raises fails the step, as the
    handler would.
    """

    _goes_on: list[bool]

    def predict(self, requests: Sequence[RequestInput]) -> Predictions:
        """Pieces go ahead in a chunk; the reply holds what is finished."""
        reply = super().predict(requests)
        if reply.status != 200:
            return reply
        marked = list(zip(reply.items, self._goes_on, strict=True))
        pieces = [item for item, goes_on in marked if goes_on]
        if pieces and self._send is not None:
            self._send(Chunk(200, reply.message, pieces))
        finished = [item for item, goes_on in marked if not goes_on]
        return Predictions(200, reply.message, finished, reply.metrics)

    def _bodies(self, output: Any, count: int) -> list[bytes | bytearray]:
        bodies = super()._bodies(output, count)
        criteria = list(self._context.stopping_criteria or [])[:count]
        verdicts = [criterion(result) for criterion, result in zip(criteria, output, strict=False)]
        goes_on = [verdict is not None and not verdict for verdict in verdicts]
        self._goes_on = goes_on + [False] * (count - len(goes_on))
        return bodies
