"""The inference port: ping, predictions, explanations."""

import time
from collections.abc import AsyncGenerator, Awaitable

from torchkeep.frontend.call import Call
from torchkeep.frontend.errors import MethodNotAllowed, ResourceNotFound
from torchkeep.frontend.jobs import Failure, Job
from torchkeep.frontend.metrics import Metrics
from torchkeep.frontend.parsing import read_input
from torchkeep.frontend.piece_stream import PieceStream
from torchkeep.frontend.registry import ModelRegistry
from torchkeep.frontend.responses import (
    Reply,
    StreamedReply,
    first_piece_reply,
    prediction_reply,
    status_reply,
)
from torchkeep.runtime.messages import Body, Prediction


class Inference:
    """The routes that end in a prediction, and the one that says whether any can."""

    def __init__(self, registry: ModelRegistry, metrics: Metrics) -> None:
        self._registry = registry
        self._metrics = metrics

    def route(self, call: Call) -> Awaitable[Reply | StreamedReply] | None:
        """TorchServe: by segments alone; every method, HEAD too, runs inference."""
        match call.segments:
            case ["predictions" | "explanations" as verb, name, *rest]:
                return self._predict(call, verb == "explanations", name, rest)
            case ["predictions" | "explanations"]:
                raise ResourceNotFound
            case ["ping", *_]:
                return self._ping()
        return None

    async def _ping(self) -> Reply:
        if self._registry.is_healthy():
            return status_reply("Healthy")
        return status_reply("Unhealthy", 500)

    def submit(self, call: Call, body: bytes) -> Job | None:
        """Queue what asks for a prediction; None for all other routes.

        Whoever calls makes the answer out of the job's with `reply`.
        """
        match call.segments:
            case ["predictions" | "explanations" as verb, name, *rest]:
                return self._submit(call, body, verb == "explanations", name, rest)
        return None

    def reply(self, call: Call, job: Job, outcome: Prediction | Failure) -> Reply | StreamedReply:
        """What the client gets. Raises the error that came in place of an answer."""
        if not isinstance(outcome, Prediction):
            raise outcome
        name = call.segments[1]
        if job.stream is not None:
            first = first_piece_reply(outcome)
            return StreamedReply(first, self._rest(call, name, job, job.stream))
        self._metrics.inference_latency(name, job.version, time.perf_counter() - call.started)
        return prediction_reply(outcome)

    def _submit(self, call: Call, body: bytes, explain: bool, name: str, rest: list[str]) -> Job:
        if call.method == "OPTIONS":
            raise MethodNotAllowed
        version = rest[0] if rest else None
        model = self._registry.get(name, version)
        added = {"explain": str(explain), "url_path": "/".join(rest[1:])}
        request_input = read_input(call.request_id, call.spelled_headers, body, added)
        self._metrics.inference_request(name, version or "default")
        return model.submit(request_input, version)

    async def _predict(
        self, call: Call, explain: bool, name: str, rest: list[str]
    ) -> Reply | StreamedReply:
        job = self._submit(call, await call.body(), explain, name, rest)
        with call.abandons(job):
            return self.reply(call, job, await job.reply())

    async def _rest(
        self, call: Call, name: str, job: Job, stream: PieceStream
    ) -> AsyncGenerator[tuple[Body, bool], None]:
        stream.on_overrun = call.cut
        with call.abandons(job):
            is_last = False
            while not is_last:
                piece, is_last = await stream.take()
                yield piece, is_last
        # TorchServe: the latency is that of the last piece
        self._metrics.inference_latency(name, job.version, time.perf_counter() - call.started)
