"""What the server and its models measure, in TorchServe's names, and where that goes.

    metrics_mode  the server's own          those of models
    prometheus    text, for /metrics        text
    log           ts_metrics.log            model_metrics.log
    legacy        three counters as text,   model_metrics.log
                  the others as log

metrics.yaml says which of them exist. Everything runs in the event loop's thread.
"""

import logging
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal

from torchkeep.frontend.metrics_config import MetricsConfig, MetricSpec
from torchkeep.frontend.prometheus import Family, Labels, Reading, prometheus_text
from torchkeep.frontend.worker_metrics import (
    MAX_WORKER_SERIES,
    Declared,
    WorkerFamilies,
    WorkerLines,
    WorkerMetrics,
)
from torchkeep.runtime.messages import Metric
from torchkeep.runtime.metric_log import MetricLog, Record, series

log = logging.getLogger(__name__)

Mode = Literal["log", "prometheus", "legacy"]

_HOST = ("Level", "Hostname")
_MODEL = ("model_name", "model_version", "hostname")
_LEGACY = (  # what has its place in the text with `metrics_mode=legacy`
    "ts_inference_requests_total",
    "ts_inference_latency_microseconds",
    "ts_queue_latency_microseconds",
)
# Read from the machine, see system_metrics.py
SYSTEM_METRICS = {
    "CPUUtilization": "Percent",
    "MemoryUsed": "Megabytes",
    "MemoryAvailable": "Megabytes",
    "MemoryUtilization": "Percent",
    "DiskUsage": "Gigabytes",
    "DiskAvailable": "Gigabytes",
    "DiskUtilization": "Percent",
}
# All that the server measures, with the labels it gives. metrics.yaml may leave some out, and
# call kind, unit and labels otherwise.
SERVER_METRICS = {
    spec.name: spec
    for spec in (
        MetricSpec("Requests2XX", "counter", "Count", _HOST),
        MetricSpec("Requests4XX", "counter", "Count", _HOST),
        MetricSpec("Requests5XX", "counter", "Count", _HOST),
        MetricSpec("ts_inference_requests_total", "counter", "Count", _MODEL),
        MetricSpec("ts_inference_latency_microseconds", "counter", "Microseconds", _MODEL),
        MetricSpec("ts_queue_latency_microseconds", "counter", "Microseconds", _MODEL),
        MetricSpec("QueueTime", "gauge", "Milliseconds", _HOST),
        MetricSpec("WorkerThreadTime", "gauge", "Milliseconds", _HOST),
        MetricSpec("WorkerLoadTime", "gauge", "Milliseconds", ("WorkerName", *_HOST)),
        *(MetricSpec(name, "gauge", unit, _HOST) for name, unit in SYSTEM_METRICS.items()),
    )
}


@dataclass(frozen=True, slots=True)
class MetricLogs:
    """The two logs that metrics can go to."""

    server: MetricLog
    models: MetricLog


class Metrics:
    """Where everybody who measures something leaves it."""

    def __init__(
        self,
        hostname: str | None = None,
        declared: MetricsConfig | None = None,  # None: all the server's own, none of models
        mode: Mode = "prometheus",
        detects_model_metrics: bool = True,
        logs: MetricLogs | None = None,  # None: what would go there is dropped
    ) -> None:
        self._hostname = hostname or socket.gethostname()
        self._host: Labels = ("Host", self._hostname)
        self._declared = declared or MetricsConfig(SERVER_METRICS)
        self._mode = mode
        self._logs = logs
        self._families: dict[str, Family] = {}
        self._complain_about_labels()
        self._declare_unmeasured()
        self._responses = {n: self._recorder(f"Requests{n}XX") for n in (2, 4, 5)}
        self._requests = self._recorder("ts_inference_requests_total")
        self._inference_latency = self._recorder("ts_inference_latency_microseconds")
        self._queue_latency = self._recorder("ts_queue_latency_microseconds")
        self._queue_time = self._recorder("QueueTime")
        self._thread_time = self._recorder("WorkerThreadTime")
        self._load_time = self._recorder("WorkerLoadTime")
        self._system = {name: self._recorder(name) for name in SYSTEM_METRICS}
        self._worker_families: dict[str, Family] = {}
        self._worker_metrics = self._worker_recorder(detects_model_metrics)

    def response(self, status: int) -> None:
        """An answer left, on any port. TorchServe: what is neither 2XX nor 4XX is 5XX."""
        self._responses.get(status // 100, self._responses[5])(self._host, 1)

    def inference_request(self, model: str, version: str) -> None:
        self._requests((model, version, self._hostname), 1)

    def inference_latency(self, model: str, version: str, seconds: float) -> None:
        self._inference_latency((model, version, self._hostname), round(seconds * 1e9) / 1e3)

    def queue_latency(self, model: str, version: str, seconds: float) -> None:
        self._queue_latency((model, version, self._hostname), round(seconds * 1e9) / 1e3)
        self._queue_time(self._host, int(seconds * 1e3))

    def batch_overhead(self, seconds: float) -> None:
        """What a batch took beside the worker's own time."""
        self._thread_time(self._host, int(seconds * 1e3))

    def worker_loaded(self, name: str, seconds: float) -> None:
        """A worker is ready; `name` is the last of its model version to be remembered."""
        family = self._families.get("WorkerLoadTime")
        if family is not None and len(family.values) >= MAX_WORKER_SERIES:
            family.values.clear()  # names of workers only grow
        self._load_time((name, *self._host), int(seconds * 1e3))

    def system(self, name: str, value: float) -> None:
        """One of SYSTEM_METRICS was read."""
        self._system[name](self._host, value)

    def observe(self, name: str, unit: str, label_names: Labels, reading: Reading) -> None:
        """A gauge that is read when somebody scrapes, and costs nothing until then."""
        if self._mode == "prometheus":
            self._families[name] = Family(name, "gauge", unit, label_names, reading=reading)

    def worker_metrics(self, samples: Sequence[Metric]) -> None:
        """Take what handlers measured. What does not fit is dropped, not an error."""
        if self._worker_metrics is not None:
            for sample in samples:
                self._worker_metrics.record(sample)

    def text(self, names: Sequence[str] = ()) -> bytes:
        """The Prometheus text, or only the samples of these names."""
        families = (*self._families.values(), *self._worker_families.values())
        return prometheus_text(families, names)

    def _recorder(self, name: str) -> Record:
        """How one of the server's own metrics is recorded."""
        spec = self._declared.ts_metrics.get(name)
        if spec is None or not _fits(spec):
            return _nothing
        if self._mode == "prometheus" or (self._mode == "legacy" and name in _LEGACY):
            family = self._family(spec)
            # The server's own counters never go down: no need to look.
            return family.add if spec.kind == "counter" else family.record
        if self._logs is None:
            return _nothing
        return self._logs.server.recorder(partial(series, spec.name, spec.unit, spec.label_names))

    def _worker_recorder(self, detects_others: bool) -> WorkerMetrics | None:
        declared = Declared(self._declared.model_metrics, detects_others, self._hostname)
        if self._mode == "prometheus":
            families = WorkerFamilies(declared, self._families, self._hostname)
            self._worker_families = families.families
            return families
        if self._logs is None:
            return None
        return WorkerLines(declared, self._logs.models, self._hostname)

    def _declare_unmeasured(self) -> None:
        """TorchServe: what is declared has its place in the text before it has a value."""
        if self._mode == "prometheus":
            for spec in self._declared.ts_metrics.values():
                self._family(spec)

    def _family(self, spec: MetricSpec) -> Family:
        if spec.name not in self._families:
            family = Family(spec.name, spec.kind, spec.unit, spec.label_names)
            self._families[spec.name] = family
        return self._families[spec.name]

    def _complain_about_labels(self) -> None:
        for spec in self._declared.ts_metrics.values():
            if not _fits(spec):
                log.error(
                    "Failed to load metrics configuration: %s has the dimensions %s, expected"
                    " as many as %s",
                    spec.name,
                    ", ".join(spec.label_names) or "none",
                    ", ".join(SERVER_METRICS[spec.name].label_names),
                )


def _fits(spec: MetricSpec) -> bool:
    ours = SERVER_METRICS.get(spec.name)
    return ours is None or len(ours.label_names) == len(spec.label_names)


def _nothing(_labels: Labels, _value: float) -> None:
    """A metric that nobody wants."""
