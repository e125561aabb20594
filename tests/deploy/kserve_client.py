"""Asks a server as KServe's users do: run by the Python of an environment with KServe's SDK.

`python kserve_client.py PROTOCOL URL MODEL` writes what came back, as JSON.
"""

import asyncio
import json
import sys
from typing import Any

from httpx import HTTPStatusError
from kserve import InferenceRESTClient, InferInput, InferRequest, RESTConfig


async def ask(protocol: str, url: str, model: str) -> dict[str, Any]:
    said: dict[str, Any] = {}
    async with InferenceRESTClient(RESTConfig(protocol=protocol, retries=0)) as client:
        said["live"] = await client.is_server_live(url)
        said["model ready"] = await client.is_model_ready(url, model)
        if protocol == "v1":
            data = {"instances": [[1, 2], [3, 4]]}
            said["infer"] = await client.infer(url, data, model_name=model)
            said["explain"] = await client.explain(url, model, data)
        else:
            said["ready"] = await client.is_server_ready(url)
            inputs = [
                InferInput("first", [2, 2], "INT64", [[1, 2], [3, 4]]),
                InferInput("second", [2], "FP64", [0.5, 0.25]),
            ]
            request = InferRequest(model_name=model, request_id="mine", infer_inputs=inputs)
            answer = await client.infer(url, request, model_name=model)
            said["infer"] = {
                "id": answer.id,
                "model": [answer.model_name, answer.model_version],
                "outputs": [[o.name, o.datatype, o.shape, o.data] for o in answer.outputs],
            }
            said["unknown is ready"] = await client.is_model_ready(url, "nobody")
        try:
            await client.infer(url, {"instances": [1], "inputs": []}, model_name="nobody")
        except HTTPStatusError as error:
            said["unknown"] = error.response.status_code
    return said


if __name__ == "__main__":
    sys.stdout.write(json.dumps(asyncio.run(ask(*sys.argv[1:]))))
