"""What the Open Inference Protocol adds to the inference port, where the configuration says so."""

from collections.abc import Awaitable

from torchkeep.frontend.call import Call
from torchkeep.frontend.responses import Reply, json_reply

# TorchServe: misspelled, and clients have got used to it
SERVER = {"name": "Torchserve", "version": "0.12.0", "extenstion": ["kserve", "kubeflow"]}


class OpenInference:
    """The server's metadata and health; inference itself is a route like KServe's others."""

    def route(self, call: Call) -> Awaitable[Reply] | None:
        """Any method."""
        match call.segments:
            case ["v2"]:
                return _answer(SERVER)
            case ["v2", "health", "live"]:
                return _answer({"live": True})
            case ["v2", "health", "ready"]:
                # TorchServe: whatever the models do
                return _answer({"ready": True})
            case [_, _, _, _, _, *_] if "/versions" in call.scope["path"]:
                return _answer({"error": "Model versioning is not yet supported."}, 501)
        return None


async def _answer(value: object, status: int = 200) -> Reply:
    return json_reply(value, status)
