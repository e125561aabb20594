"""One loaded model: a batch of request inputs goes to the handler, predictions come back.

The handler is somebody else's code. What it raises becomes an answer; what it hands us
that no reply can hold is a `ProtocolViolation`, which ends the worker as in TorchServe.
Payloads are never logged.
"""

import io
import json
import logging
import os
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from torchkeep.backend.failures import failure, mentions_cuda, print_traceback
from torchkeep.backend.handler import (
    EntryPoint,
    expose_handler_paths,
    expose_ts,
    load_entry_point,
)
from torchkeep.backend.handler_output import encode_output, to_metric, to_prediction
from torchkeep.backend.piece_sender import PieceSender
from torchkeep.backend.warm_up import WarmUp, warm_up
from torchkeep.runtime.errors import ServingError
from torchkeep.runtime.messages import (
    MAX_ITEMS,
    Chunk,
    InputParameter,
    Load,
    Metric,
    Prediction,
    Predictions,
    RequestInput,
)

if TYPE_CHECKING:
    from ts.context import Context, RequestProcessor
    from ts.metrics.caching_metric import Emission

log = logging.getLogger(__name__)

MAX_ERROR_CHARACTERS = 1000  # of a failed load, on its way to a client


class LoadFailed(ServingError):
    """The handler could not be loaded. The message is the last line of its own traceback."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.message = message


class Service:
    """A handler with its context, which lives as long as the worker does."""

    def __init__(
        self,
        context: "Context",
        entry_point: EntryPoint,
        emissions: "list[Emission]",
        decode_input_request: bool = True,
        tells_errors: bool = True,
    ) -> None:
        self._context = context
        self._metrics = context.metrics
        self._entry_point = entry_point
        self._emissions = emissions  # what the handler records, filled by `context.metrics`
        self._decodes = decode_input_request
        self._tells_errors = tells_errors
        self.summary = f"loaded model {context.model_name}"
        self._warm_up = WarmUp()
        self._send: Callable[[Chunk], None] | None = None

    @classmethod
    def load(cls, load: Load) -> "Service":
        """Load the model into this process, whose working directory becomes the model's."""
        model_dir = Path(load.model_dir)
        emissions: list[Emission] = []
        try:
            os.chdir(model_dir)
            expose_ts()
            # All of `ts` that we call ourselves, before the model has a say in what it imports.
            import ts.model_loader  # noqa: F401

            expose_handler_paths(model_dir, load.handler)
            context = _build_context(load, emissions)
            entry_point = load_entry_point(load.handler, load.envelope, context)
        except Exception as error:
            failure = _load_failed(error)
            if failure.status != 507:
                # TorchServe: then its worker ends, with the line that its users' tools look for.
                with suppress(Exception):  # as in `print_traceback`
                    sys.stdout.write("Backend worker process died.\n")
            print_traceback(error)
            raise failure from error
        service = cls(
            context,
            entry_point,
            emissions,
            load.decode_input_request,
            load.sandbox.tells_errors,
        )
        if load.parallel.world_size > 1:
            # Each rank would choose for itself, and the parts of a model must compute alike.
            return service
        try:
            service._warm_up = warm_up(load, context, lambda request: service.predict([request]))
        except Exception as error:
            # The model was loaded, and answers as it did.
            print_traceback(error)
            log.warning("the warm-up failed: %s", type(error).__name__)
        return service

    @property
    def engine(self) -> str:
        """What runs the model, in one line; empty where that is the handler's affair."""
        return self._warm_up.engine

    def rehearse(self) -> None:
        """Run the model once in a fork of the process that loaded it.

        A fork that cannot compute hangs here, where the frontend waits with a deadline and
        loads anew, and not at a client's first request.
        """
        self._warm_up.run(1)

    def connect(self, send: Callable[[Chunk], None]) -> None:
        """Let the handler send pieces of its answers before they are complete."""
        self._send = send
        self._context.cl_socket.connect(send)

    def predict(self, requests: Sequence[RequestInput]) -> Predictions:
        """Answer one batch; every request shares the success or failure of the handler's call.

        But for those that the handler itself has failed through the context.
        """
        context = self._context
        rows = self._set_requests(context, requests)
        processors = context.request_processor
        started = time.perf_counter()
        try:
            output = self._entry_point(rows, context)
            elapsed_ms = (time.perf_counter() - started) * 1000
            bodies = self._bodies(output, len(requests))
        except Exception as error:
            return self._failed(requests, error)
        finally:
            context.cl_socket.end()
        return self._answered(requests, bodies, processors, elapsed_ms)

    def _bodies(self, output: Any, count: int) -> list[bytes | bytearray]:
        return encode_output(output, count)

    def _answered(
        self,
        requests: Sequence[RequestInput],
        bodies: "Sequence[bytes | bytearray]",
        processors: "Sequence[RequestProcessor]",
        elapsed_ms: float,
    ) -> Predictions:
        if self._metrics is not None:
            self._metrics.add_time("PredictionTime", round(elapsed_ms, 2), None, "ms")
        items = [
            to_prediction(request.request_id, body, processor)
            for request, body, processor in zip(requests, bodies, processors, strict=True)
        ]
        return Predictions(200, "Prediction success", items, self._take_metrics())

    def follow(self, requests: Sequence[RequestInput]) -> None:
        """Compute a batch that another rank answers."""
        rows = self._set_requests(self._context, requests)
        try:
            self._entry_point(rows, self._context)
        except Exception as error:
            print_traceback(error)
        finally:
            self._context.cl_socket.end()
            self._emissions.clear()

    def _set_requests(
        self, context: "Context", requests: Sequence[RequestInput]
    ) -> list[dict[str, Any]]:
        """Point the context at this batch; returns the rows that the handler gets."""
        from ts.context import RequestProcessor

        request_ids = {index: request.request_id for index, request in enumerate(requests)}
        context.request_ids = request_ids
        if context.metrics is not None:
            context.metrics.set_request_ids(request_ids)
        processors = [RequestProcessor(_visible_headers(request)) for request in requests]
        context.request_processor = processors
        context.cl_socket.begin(requests, processors)
        return [
            {parameter.name: self._decode(parameter) for parameter in request.parameters}
            for request in requests
        ]

    def _decode(self, parameter: InputParameter) -> Any:
        raw = parameter.value
        value = raw if isinstance(raw, bytearray) else bytearray(raw)
        try:
            if self._decodes and parameter.content_type == "application/json":
                # Decoded first: `json.loads` of bytes would also take UTF-16 and a byte order mark.
                return json.loads(value.decode("utf-8"))
            if self._decodes and parameter.content_type.startswith("text"):
                return value.decode("utf-8")
        except (ValueError, RecursionError):
            log.warning(
                "a body of type %r cannot be decoded, handed on raw", parameter.content_type
            )
        return value

    def _failed(self, requests: Sequence[RequestInput], error: Exception) -> Predictions:
        return self._refused(requests, *failure(error, self._tells_errors))

    def _refused(self, requests: Sequence[RequestInput], status: int, message: str) -> Predictions:
        items = [Prediction(request.request_id, b"error") for request in requests]
        return Predictions(status, message, items, self._take_metrics())

    def _take_metrics(self) -> list[Metric]:
        """What was recorded since the last reply; more than a reply can hold is dropped."""
        emissions = self._emissions[:]
        del self._emissions[: len(emissions)]
        if len(emissions) > MAX_ITEMS:
            log.warning("dropped %d metrics of one batch", len(emissions) - MAX_ITEMS)
        samples = map(to_metric, emissions[:MAX_ITEMS])
        return [sample for sample in samples if sample is not None]


def _build_context(load: Load, emissions: "list[Emission]") -> "Context":
    from ts import __version__
    from ts.context import Context
    from ts.metrics.metric_cache_yaml_impl import DEFAULT_METRICS_FILE, MetricsCacheYamlImpl

    metrics = MetricsCacheYamlImpl(
        load.metrics_file or DEFAULT_METRICS_FILE, emissions.append, load.metrics_config or None
    )
    metrics.initialize_cache()
    metrics.model_name = load.model_name
    manifest = _read_manifest(Path(load.model_dir))
    context = Context(
        model_name=load.model_name,
        model_dir=load.model_dir,
        manifest=manifest,
        batch_size=load.batch_size,
        gpu=load.gpu_id if load.gpu_id >= 0 else None,
        mms_version=__version__,
        limit_max_image_pixels=load.limit_max_image_pixels,
        metrics=metrics,
        model_yaml_config=_read_model_config(Path(load.model_dir), manifest),
    )
    context.cl_socket = PieceSender(load.sandbox.tells_errors)
    context.is_confined = load.sandbox.level != "off"
    return context


def _read_manifest(model_dir: Path) -> dict[str, Any] | None:
    try:
        text = (model_dir / "MAR-INF" / "MANIFEST.json").read_text(encoding="utf-8")
    except FileNotFoundError:
        return None
    manifest = json.loads(text)
    return manifest if isinstance(manifest, dict) else None


def _read_model_config(model_dir: Path, manifest: dict[str, Any] | None) -> dict[str, Any]:
    name = ((manifest or {}).get("model") or {}).get("configFile")
    if not name:
        return {}
    text = (model_dir / name).read_text("utf-8")
    try:
        # From a stream, because PyYAML's errors quote a text, which may be a secret.
        config = yaml.safe_load(io.StringIO(text))
    except yaml.YAMLError as error:
        raise ValueError(f"{name} is no yaml: {error}") from error
    return config if isinstance(config, dict) else {}


def _load_failed(error: Exception) -> LoadFailed:
    is_cuda_failure = isinstance(error, RuntimeError) and mentions_cuda(error)
    if isinstance(error, MemoryError) or is_cuda_failure:
        return LoadFailed(507, "System out of memory")
    # The exception's own text may have many lines: all on one, as a log line and a reply need.
    line = " ".join(traceback.format_exception_only(error)[-1].split())
    return LoadFailed(500, line[:MAX_ERROR_CHARACTERS])


def _visible_headers(request: RequestInput) -> dict[str, Any]:
    """What the handler sees: each parameter's content type by its name, then the HTTP headers."""
    headers: dict[str, Any] = {
        parameter.name: {"content-type": parameter.content_type} for parameter in request.parameters
    }
    headers.update(request.headers)
    return headers
