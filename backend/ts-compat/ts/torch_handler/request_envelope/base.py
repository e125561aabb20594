"""What all envelopes share: input in, results out, around a handler's entry point."""

import json
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any


class BaseEnvelope(ABC):
    """Wraps `handle_fn`; a load call without data, and empty results, pass through untouched."""

    def __init__(self, handle_fn: Callable[[Any, Any], Any]) -> None:
        self._handle_fn = handle_fn
        self.context: Any = None

    def handle(self, data: Any, context: Any) -> Any:
        self.context = context
        results = self._handle_fn(self.parse_input(data) if data else data, context)
        return self.format_output(results) if results else results

    @abstractmethod
    def parse_input(self, data: Any) -> Any:
        """The rows for the handler."""

    @abstractmethod
    def format_output(self, data: Any) -> Any:
        """One answer per request."""

    def _is_explain(self) -> bool:
        return bool(self.context.get_request_header(0, "explain") == "True")


def parsed_body(row: Any) -> Any:
    """The JSON of a request, also where its content type did not say that it is JSON."""
    body = row.get("data") or row.get("body")
    return json.loads(body) if isinstance(body, bytes | bytearray | str) else body
