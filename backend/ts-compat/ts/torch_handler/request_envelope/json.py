"""The envelope `json`: `{"instances": [...]}` in, one line `{"predictions": [...]}` out."""

import base64
import json
from typing import Any

from ts.torch_handler.request_envelope.base import BaseEnvelope


class JSONEnvelope(BaseEnvelope):
    """The instances of all requests make one list; the results are dealt out again."""

    def __init__(self, handle_fn: Any) -> None:
        super().__init__(handle_fn)
        self._lengths: list[int] = []

    def parse_input(self, data: Any) -> Any:
        batches = [(row.get("data") or row.get("body"))["instances"] for row in data]
        self._lengths = [len(batch) for batch in batches]
        instances = [_decoded(instance) for batch in batches for instance in batch]
        if not instances:
            raise ValueError("a batch without instances")
        return instances

    def format_output(self, data: Any) -> Any:
        answers = []
        start = 0
        for length in self._lengths:
            # TorchServe: where the handler gave too few, the last requests get less
            answers.append(json.dumps({"predictions": data[start : start + length]}))
            start += length
        return answers


def _decoded(instance: Any) -> Any:
    if not isinstance(instance, dict):
        return instance
    if instance.keys() == {"b64"}:
        return base64.b64decode(instance["b64"])
    return {
        name: base64.b64decode(value["b64"])
        if isinstance(value, dict) and value.keys() == {"b64"}
        else value
        for name, value in instance.items()
    }
