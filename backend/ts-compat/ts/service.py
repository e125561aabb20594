"""A loaded handler outside of a worker: its context, and whole batches in TorchServe's form."""

import logging
import os
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from ts import __version__
from ts.context import Context, RequestProcessor
from ts.metrics.metric_cache_yaml_impl import MetricsCacheYamlImpl
from ts.protocol.otf_message_handler import create_predict_response
from ts.utils.util import PredictionException as PredictionException
from ts.utils.util import get_yaml_config

_log = logging.getLogger(__name__)

PREDICTION_METRIC = "PredictionTime"


class Service:
    """What `ts.model_loader` returns. Torchkeep's workers have a service of their own."""

    def __init__(
        self,
        model_name: str,
        model_dir: str,
        manifest: dict[str, Any] | None,
        entry_point: Callable[[Any, Context], Any] | None,
        gpu: int | None,
        batch_size: int | None,
        limit_max_image_pixels: bool = True,
        metrics_cache: MetricsCacheYamlImpl | None = None,
    ) -> None:
        self._entry_point = entry_point
        self._context = Context(
            model_name,
            model_dir,
            manifest,
            1 if batch_size is None else batch_size,
            gpu,
            __version__,
            limit_max_image_pixels,
            metrics_cache,
            _model_config(model_dir, manifest),
        )

    @property
    def context(self) -> Context:
        return self._context

    def set_entry_point(self, entry_point: Callable[[Any, Context], Any]) -> None:
        """What answers, for who needs the context to load it."""
        self._entry_point = entry_point

    def set_cl_socket(self, cl_socket: Any) -> None:
        """Where `send_intermediate_predict_response` sends to."""
        self._context.cl_socket = cl_socket

    @staticmethod
    def retrieve_data_for_inference(
        batch: Sequence[dict[str, Any]],
    ) -> tuple[list[RequestProcessor], list[dict[str, Any]], dict[int, str]]:
        """Headers, rows and ids of requests; ValueError where there are none at all.

        A request is `{"requestId": b"...", "headers": [{"name", "value"}], "parameters":
        [{"name", "contentType", "value"}]}`.
        """
        if batch is None:
            raise ValueError("Received invalid inputs: expected a list of requests")
        processors, rows = [], []
        for request in batch:
            headers = request.get("headers") or []
            named = {_decoded(one["name"]): _decoded(one["value"]) for one in headers}
            processors.append(RequestProcessor(named))
            rows.append({one["name"]: one["value"] for one in request["parameters"]})
        ids = {index: _decoded(request["requestId"]) for index, request in enumerate(batch)}
        return processors, rows, ids

    def predict(self, batch: Sequence[dict[str, Any]]) -> bytearray | None:
        """Answer a batch, as `create_predict_response` puts it."""
        context = self._context
        processors, rows, ids = self.retrieve_data_for_inference(batch)
        context.request_ids, context.request_processor = ids, processors
        if context.metrics is not None:
            context.metrics.set_request_ids(ids)
        started = time.perf_counter()
        try:
            output = self._call(rows)
        except MemoryError:
            _log.error("System out of memory", exc_info=True)
            return create_predict_response(None, ids, "Out of resources", 507)
        except PredictionException as error:
            _log.error("Prediction error", exc_info=True)
            return create_predict_response(None, ids, error.message, error.error_code)
        except Exception:
            _log.warning("Invoking custom service failed.", exc_info=True)
            return create_predict_response(None, ids, "Prediction failed", 503)
        if complaint := _complaint(output, len(ids)):
            _log.warning("model: %s, %s", context.model_name, complaint)
            return create_predict_response(None, ids, complaint, 503)
        if context.metrics is not None:
            elapsed_ms = (time.perf_counter() - started) * 1000
            context.metrics.add_time(PREDICTION_METRIC, round(elapsed_ms, 2), None, "ms")
        return create_predict_response(output, ids, "Prediction success", 200, context)

    def _call(self, rows: list[dict[str, Any]]) -> Any:
        if self._entry_point is None:
            raise PredictionException(f"the model {self._context.model_name} has no handler")
        return self._entry_point(rows, self._context)


def emit_metrics(metrics: Iterable[Any]) -> None:
    """Log each metric as a line `[METRICS]...`, which the server takes for metrics."""
    for metric in metrics or ():
        _log.info("[METRICS]%s", metric)


def _complaint(output: Any, count: int) -> str | None:
    """Why this is no answer to `count` requests, in TorchServe's words."""
    if not isinstance(output, list) and type(output).__name__ != "Tensor":
        return "Invalid model predict output"
    if len(output) != count:
        return "number of batch response mismatched"
    return None


def _model_config(model_dir: str, manifest: dict[str, Any] | None) -> dict[str, Any]:
    name = ((manifest or {}).get("model") or {}).get("configFile")
    if not name:
        return {}
    return dict(get_yaml_config(os.path.join(model_dir, name)) or {})


def _decoded(value: str | bytes) -> str:
    return value if isinstance(value, str) else bytes(value).decode()
