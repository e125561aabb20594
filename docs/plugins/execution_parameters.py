"""GET /execution-parameters: SageMaker's batch transform asks how much it may send at a time."""

from typing import Any

from torchkeep.runtime.plugins import Request, endpoint


@endpoint("execution-parameters")
def execution_parameters(request: Request) -> dict[str, Any]:
    server = request.server
    return {
        "MaxConcurrentTransforms": max(1, sum(model.workers for model in server.models)),
        "BatchStrategy": "MULTI_RECORD",
        "MaxPayloadInMB": max(1, server.max_request_bytes >> 20),
    }
