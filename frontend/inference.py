"""The inference port: ping, predictions, explanations."""

import time
from collections.abc import Awaitable

from torchkeep.frontend.call import Call
from torchkeep.frontend.errors import MethodNotAllowed, ResourceNotFound
from torchkeep.frontend.metrics import Metrics
from torchkeep.frontend.parsing import read_input
from torchkeep.frontend.registry import ModelRegistry
from torchkeep.frontend.responses import Reply, prediction_reply, status_reply


class Inference:
    """The routes that end in a prediction, and the one that says whether any can."""

    def __init__(self, registry: ModelRegistry, metrics: Metrics) -> None:
        self._registry = registry
        self._metrics = metrics

    def route(self, call: Call) -> Awaitable[Reply] | None:
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

    async def _predict(self, call: Call, explain: bool, name: str, rest: list[str]) -> Reply:
        if call.method == "OPTIONS":
            raise MethodNotAllowed
        version = rest[0] if rest else None
        model = self._registry.get(name, version)
        added = {"explain": str(explain), "url_path": "/".join(rest[1:])}
        request_input = read_input(call.request_id, call.spelled_headers, await call.body(), added)
        version_label = version or "default"
        self._metrics.inference_request(name, version_label)
        job = model.submit(request_input, version)
        with call.abandons(job):
            prediction = await job.reply()
        self._metrics.inference_latency(name, version_label, time.perf_counter() - call.started)
        return prediction_reply(prediction)
