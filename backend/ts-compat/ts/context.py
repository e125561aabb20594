"""What a handler is told about its model and its requests, and how it shapes its replies.

One `Context` lives as long as its worker: handlers keep things on it between batches.
"""

import os
from typing import Any, cast
from weakref import ref

from ts.metrics.metric_cache_yaml_impl import MetricsCacheYamlImpl


class RequestProcessor:
    """The headers of one request, and the status and headers of its reply."""

    def __init__(self, request_header: dict[str, Any]) -> None:
        self._request_header = request_header
        self._status_code: int = 200
        self._reason_phrase: str | None = None
        self._response_header: dict[str, str] = {}

    def get_request_property(self, key: str) -> Any:
        """The value of a request header, spelled exactly as the client spelled it, or None."""
        return self._request_header.get(key)

    def get_request_properties(self) -> dict[str, Any]:
        return self._request_header

    def report_status(self, code: int, reason_phrase: str | None = None) -> None:
        """Set the status line of the reply; its body stays what the handler returns."""
        self._status_code = code
        self._reason_phrase = reason_phrase

    def get_response_status_code(self) -> int:
        return self._status_code

    def get_response_status_phrase(self) -> str | None:
        return self._reason_phrase

    def add_response_property(self, key: str, value: str) -> None:
        self._response_header[key] = value

    def get_response_headers(self) -> dict[str, str]:
        return self._response_header

    def get_response_header(self, key: str) -> str | None:
        return self._response_header.get(key)


class Context:
    """The model's properties and the current batch; two are equal when all they hold is."""

    def __init__(
        self,
        model_name: str,
        model_dir: str,
        manifest: dict[str, Any] | None,
        batch_size: int,
        gpu: int | None,
        mms_version: str,
        limit_max_image_pixels: bool = True,
        metrics: MetricsCacheYamlImpl | None = None,
        model_yaml_config: dict[str, Any] | None = None,
    ) -> None:
        self.model_name = model_name
        self.manifest = manifest
        self.system_properties: dict[str, Any] = {
            "model_dir": model_dir,
            "gpu_id": gpu,
            "batch_size": batch_size,
            "server_name": "MMS",
            "server_version": mms_version,
            "limit_max_image_pixels": limit_max_image_pixels,
        }
        self.model_yaml_config = {} if model_yaml_config is None else model_yaml_config
        # A worker always has them, so handlers need not ask; a test may do without.
        self.metrics = cast(MetricsCacheYamlImpl, metrics)
        self.request_ids: dict[int, str] = {}
        self.request_processor: list[RequestProcessor] = []
        self.stopping_criteria: list[Any] | None = None
        self.cl_socket: Any = None
        self.is_confined = False  # whether the sandbox holds this process
        # The handler whose model the worker may optimise. Weak, as a copy of the context must
        # not copy the model.
        self.base_handler: ref[Any] | None = None
        self.header_key_sequence_id = os.environ.get(
            "TS_REQUEST_SEQUENCE_ID", "ts_request_sequence_id"
        )
        self.header_key_sequence_start = os.environ.get(
            "TS_REQUEST_SEQUENCE_START", "ts_request_sequence_start"
        )
        self.header_key_sequence_end = os.environ.get(
            "TS_REQUEST_SEQUENCE_END", "ts_request_sequence_end"
        )

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Context) and self.__dict__ == other.__dict__

    __hash__ = None  # type: ignore[assignment]

    def get_request_id(self, idx: int = 0) -> str | None:
        return self.request_ids.get(idx)

    def get_request_header(self, idx: int, key: str) -> Any:
        return self.request_processor[idx].get_request_property(key)

    def get_all_request_header(self, idx: int) -> dict[str, Any]:
        return self.request_processor[idx].get_request_properties()

    def get_sequence_id(self, idx: int) -> Any:
        """The id of the sequence that request `idx` belongs to, or None."""
        return self.get_request_header(idx, self.header_key_sequence_id)

    def set_response_content_type(self, idx: int, value: str) -> None:
        self.set_response_header(idx, "content-type", value)

    def get_response_content_type(self, idx: int) -> str | None:
        return self.request_processor[idx].get_response_header("content-type")

    def set_response_header(self, idx: int, key: str, value: str) -> None:
        self.request_processor[idx].add_response_property(key, value)

    def get_response_headers(self, idx: int) -> dict[str, str]:
        return self.request_processor[idx].get_response_headers()

    def set_response_status(self, code: int = 200, phrase: str = "", idx: int = 0) -> None:
        self.request_processor[idx].report_status(code, phrase)

    def set_all_response_status(self, code: int = 200, phrase: str = "") -> None:
        for processor in self.request_processor:
            processor.report_status(code, phrase)

    def fail(self, idx: int, error: Exception) -> None:
        """Answer request `idx` with an error, at once; the others are answered as ever.

        As if the handler raised it for this request alone: `PredictionException` gives the code
        and the message, any other exception is a 503. What the handler returns at `idx` is
        dropped, so it may be None. An addition of Torchkeep: in TorchServe what is raised fails
        the whole batch, and `set_response_status` leaves the body to the handler.
        """
        request_id = self.request_ids.get(idx)
        if request_id is None:
            raise IndexError(f"the batch has no request {idx}, it has {len(self.request_ids)}")
        self.cl_socket.fail(request_id, error)

    def get_response_status(self, idx: int) -> tuple[int, str | None]:
        """(200, None) until the handler sets a status."""
        processor = self.request_processor[idx]
        return processor.get_response_status_code(), processor.get_response_status_phrase()
