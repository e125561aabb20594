"""What the Open Inference Protocol adds to the inference port, where the configuration says so.

So does KServe's version 1: a server that KServe runs is asked on one port by both.
"""

from collections.abc import Awaitable

from torchkeep.frontend.call import Call
from torchkeep.frontend.errors import ModelWaits
from torchkeep.frontend.registry import ModelRegistry
from torchkeep.frontend.responses import Reply, json_reply

# TorchServe: misspelled, and clients have got used to it
SERVER = {"name": "Torchserve", "version": "0.12.0", "extenstion": ["kserve", "kubeflow"]}


class OpenInference:
    """Metadata and health, of server and models; inference is a route like KServe's others.

    TorchServe knows nothing of models here (404), and is always ready: there, KServe asks a
    process in front of it. We are asked ourselves.
    """

    def __init__(self, registry: ModelRegistry) -> None:
        self._registry = registry

    def route(self, call: Call) -> Awaitable[Reply] | None:
        """Any method, but for what KServe's version 1 adds."""
        match call.segments:
            case ["v2"]:
                return _answer(SERVER)
            case ["v2", "health", "live"]:
                return _answer({"live": True})
            case ["v2", "health", "ready"]:
                is_ready = self._registry.is_ready()
                return _answer({"ready": is_ready}, 200 if is_ready else 503)
            case ["v2", "models", name]:
                return self._metadata(name)
            case ["v2", "models", name, "ready"]:
                return self._readiness(name)
            case ["v1", "models", name] if call.method == "GET":
                return self._readiness(name)
            case [_, _, _, _, _, *_] if "/versions" in call.scope["path"]:
                return _answer({"error": "Model versioning is not yet supported."}, 501)
        return None

    async def _readiness(self, name: str) -> Reply:
        """Whether its default version would answer; unlike management's, it must have loaded."""
        try:
            is_ready = self._registry.get(name).is_ready
        except ModelWaits:
            is_ready = False
        return json_reply({"name": name, "ready": is_ready}, 200 if is_ready else 503)

    async def _metadata(self, name: str) -> Reply:
        """Handlers do not say what tensors they take: the protocol's lists of them are empty."""
        versions = [served.spec.version for served in self._registry.versions(name)]
        tensors: dict[str, list[object]] = {"inputs": [], "outputs": []}
        return json_reply({"name": name, "versions": versions, "platform": "pytorch", **tensors})


class Liveness:
    """`GET /`, as KServe's version 1 asks whether a server lives. Whoever asks needs no key."""

    def route(self, call: Call) -> Awaitable[Reply] | None:
        if call.method == "GET" and call.scope["path"] == "/":
            return _answer({"status": "alive"})
        return None


async def _answer(value: object, status: int = 200) -> Reply:
    return json_reply(value, status)
