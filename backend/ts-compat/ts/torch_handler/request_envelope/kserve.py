"""The envelope `kserve`: KServe's version 1 protocol."""

from typing import Any

from ts.torch_handler.request_envelope.base import BaseEnvelope, parsed_body


class KServeEnvelope(BaseEnvelope):
    """Only the first request of a batch counts: its instances are the handler's batch."""

    def parse_input(self, data: Any) -> Any:
        return parsed_body(data[0]).get("instances")

    def format_output(self, data: Any) -> Any:
        return [{"explanations" if self._is_explain() else "predictions": data}]
