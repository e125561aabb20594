"""The inference port: ping, and whatever ends in a prediction."""

import time
from collections.abc import AsyncGenerator, Awaitable

from torchkeep.frontend.call import Call
from torchkeep.frontend.errors import BadRequest
from torchkeep.frontend.jobs import Failure, Job
from torchkeep.frontend.metrics import Metrics
from torchkeep.frontend.openapi import model_document
from torchkeep.frontend.parsing import read_input
from torchkeep.frontend.piece_stream import PieceStream
from torchkeep.frontend.registry import ModelRegistry
from torchkeep.frontend.request_opener import RequestOpener
from torchkeep.frontend.responses import (
    Reply,
    StreamedReply,
    first_piece_reply,
    json_reply,
    prediction_reply,
    status_reply,
)
from torchkeep.frontend.targets import Target, read_target
from torchkeep.runtime.messages import Body, Prediction, RequestInput


class Inference:
    """The routes that end in a prediction, and the one that says whether any can."""

    def __init__(
        self, registry: ModelRegistry, metrics: Metrics, opener: RequestOpener | None = None
    ) -> None:
        self._registry = registry
        self._metrics = metrics
        self._opener = opener  # None: nothing can be sealed, nor signed

    def route(self, call: Call) -> Awaitable[Reply | StreamedReply] | None:
        """TorchServe: by segments alone; every method, HEAD too, runs inference."""
        if call.segments[0] == "ping":
            return self._ping()
        target = read_target(call.segments)
        if target is None:
            return None
        if call.method == "OPTIONS":
            return self._describe(call, target)
        return self._predict(call, target)

    async def _ping(self) -> Reply:
        if self._registry.is_healthy():
            return status_reply("Healthy")
        return status_reply("Unhealthy", 500)

    async def _describe(self, call: Call, target: Target) -> Reply:
        name = target.name
        if name is None:
            name = self._invoked(call, read_input("", call.spelled_headers, await call.body(), {}))
        self._registry.get(name, target.version)
        return json_reply(model_document(name))

    def submit(self, call: Call, body: bytes) -> Job | None:
        """Queue what asks for a prediction; None for all other routes.

        Whoever calls makes the answer out of the job's with `reply`.
        """
        target = read_target(call.segments)
        if target is None or call.method == "OPTIONS":
            return None
        return self._submit(call, body, target)

    def reply(self, call: Call, job: Job, outcome: Prediction | Failure) -> Reply | StreamedReply:
        """What the client gets. Raises the error that came in place of an answer."""
        if not isinstance(outcome, Prediction):
            raise outcome
        if job.stream is not None:
            first = first_piece_reply(outcome)
            return StreamedReply(first, self._rest(call, job, job.stream))
        self._metrics.inference_latency(
            call.model_name, job.version, time.perf_counter() - call.started
        )
        return prediction_reply(outcome)

    def _submit(self, call: Call, body: Body, target: Target) -> Job:
        if self._opener is not None:
            body = self._opener.open(call, target, body)
        name, version = target.name, target.version
        model = None if name is None else self._registry.get(name, version)
        query = call.query_fields if target.takes_query else ()
        request_input = read_input(call.request_id, call.spelled_headers, body, target.added, query)
        if name is None or model is None:
            name = self._invoked(call, request_input)
            model = self._registry.get(name)
        call.model_name = name
        if call.envelope is not None:
            call.envelope.model = model.claim
        self._metrics.inference_request(name, version or "default")
        return model.submit(request_input, version)

    def _invoked(self, call: Call, request_input: RequestInput) -> str:
        """The model that /invocations means. TorchServe: the query counts before the body."""
        name = call.query.get("model_name")
        if name is None:
            name = self._registry.only_startup_name
        if name is not None:
            return name
        for parameter in request_input.parameters:
            if parameter.name == "model_name":
                return bytes(parameter.value).decode("utf-8", "replace")
        raise BadRequest("Parameter model_name is required.")

    async def _predict(self, call: Call, target: Target) -> Reply | StreamedReply:
        job = self._submit(call, await call.body(), target)
        with call.abandons(job):
            return self.reply(call, job, await job.reply())

    async def _rest(
        self, call: Call, job: Job, stream: PieceStream
    ) -> AsyncGenerator[tuple[Body, bool], None]:
        stream.on_overrun = call.cut
        with call.abandons(job):
            is_last = False
            while not is_last:
                piece, is_last = await stream.take()
                yield piece, is_last
        # TorchServe: the latency is that of the last piece
        self._metrics.inference_latency(
            call.model_name, job.version, time.perf_counter() - call.started
        )
