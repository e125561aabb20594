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
        return [_decoded(instance) for batch in batches for instance in batch]

    def format_output(self, data: Any) -> Any:
        answers = []
        remaining = iter(data)
        for length in self._lengths:
            answers.append(json.dumps({"predictions": [next(remaining) for _ in range(length)]}))
        return answers


def _decoded(instance: Any) -> Any:
    if not isinstance(instance, dict):
        return instance
    if "b64" in instance:
        return base64.b64decode(instance["b64"])
    return {
        name: base64.b64decode(value["b64"])
        if isinstance(value, dict) and "b64" in value
        else value
        for name, value in instance.items()
    }
