"""Counters and gauges of the whole server, and the Prometheus text TorchServe's tools read.

Written by hand instead of with prometheus-client, which cannot print TorchServe's names (it
appends `_total` to every counter) nor its spelling of samples. Everything runs in the event
loop's thread, so there are no locks.
"""

import math
import re
import socket
from bisect import bisect_left
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from torchkeep.runtime.messages import Metric

TEXT_TYPE = b"text/plain; version=0.0.4; charset=utf-8"
BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0)

# A handler chooses the names and labels of its metrics. It must not fill our memory with them.
MAX_WORKER_FAMILIES = 500
MAX_WORKER_SERIES = 10_000
MAX_LABELS = 16
MAX_NAME_CHARACTERS = 128
MAX_LABEL_CHARACTERS = 256

Labels = tuple[str, ...]
Reading = Callable[[], Iterable[tuple[Labels, float]]]


@dataclass(slots=True)
class Histogram:
    """Cumulative only when printed."""

    counts: list[int] = field(default_factory=lambda: [0] * (len(BUCKETS) + 1))
    total: float = 0.0

    def observe(self, value: float) -> None:
        self.counts[bisect_left(BUCKETS, value)] += 1
        self.total += value


@dataclass(slots=True)
class Family:
    """One metric with all its label sets."""

    name: str
    kind: str
    unit: str
    label_names: Labels
    values: dict[Labels, float] = field(default_factory=dict)
    histograms: dict[Labels, Histogram] = field(default_factory=dict)
    reading: Reading | None = None  # asked at every scrape, in place of stored values

    def add(self, labels: Labels, value: float) -> None:
        """Count further."""
        self.values[labels] = self.values.get(labels, 0.0) + value

    def record(self, labels: Labels, value: float) -> None:
        """Take a sample in the way of this kind of metric."""
        if self.kind == "counter":
            self.add(labels, max(0.0, value))
        elif self.kind == "histogram":
            self.histograms.setdefault(labels, Histogram()).observe(value)
        else:
            self.values[labels] = value

    def has(self, labels: Labels) -> bool:
        return labels in self.values or labels in self.histograms


class Metrics:
    """What the server counts. Names, labels and units are TorchServe's."""

    def __init__(self, hostname: str | None = None) -> None:
        self._hostname = hostname or socket.gethostname()
        self._host: Labels = ("Host", self._hostname)
        self._families: dict[str, Family] = {}
        self._worker_families: dict[str, Family] = {}
        self._worker_series = 0
        self._known_series: dict[tuple[str, str, Labels, Labels], tuple[Family, Labels]] = {}
        host = ("Level", "Hostname")
        model = ("model_name", "model_version", "hostname")
        self._responses = {
            2: self._declare("Requests2XX", "counter", "Count", host),
            4: self._declare("Requests4XX", "counter", "Count", host),
            5: self._declare("Requests5XX", "counter", "Count", host),
        }
        self._requests = self._declare("ts_inference_requests_total", "counter", "Count", model)
        self._inference_latency = self._declare(
            "ts_inference_latency_microseconds", "counter", "Microseconds", model
        )
        self._queue_latency = self._declare(
            "ts_queue_latency_microseconds", "counter", "Microseconds", model
        )
        self._queue_time = self._declare("QueueTime", "gauge", "Milliseconds", host)
        self._load_time = self._declare(
            "WorkerLoadTime", "gauge", "Milliseconds", ("WorkerName", *host)
        )

    def response(self, status: int) -> None:
        """An answer left, on any port. TorchServe: what is neither 2XX nor 4XX is 5XX."""
        family = self._responses.get(status // 100, self._responses[5])
        family.add(self._host, 1)

    def inference_request(self, model: str, version: str) -> None:
        self._requests.add((model, version, self._hostname), 1)

    def inference_latency(self, model: str, version: str, seconds: float) -> None:
        self._inference_latency.add((model, version, self._hostname), seconds * 1e6)

    def queue_latency(self, model: str, version: str, seconds: float) -> None:
        self._queue_latency.add((model, version, self._hostname), seconds * 1e6)
        self._queue_time.record(self._host, math.floor(seconds * 1e3))

    def worker_loaded(self, name: str, seconds: float) -> None:
        """A worker is ready; `name` is the last of its model version to be remembered."""
        if len(self._load_time.values) >= MAX_WORKER_SERIES:
            self._load_time.values.clear()  # names of workers only grow
        self._load_time.record((name, *self._host), math.floor(seconds * 1e3))

    def observe(self, name: str, unit: str, label_names: Labels, reading: Reading) -> None:
        """A gauge that is read when somebody scrapes, and costs nothing until then."""
        self._declare(name, "gauge", unit, label_names).reading = reading

    def worker_metrics(self, samples: Sequence[Metric]) -> None:
        """Fold in what handlers measured. What does not fit is dropped, not an error."""
        for sample in samples:
            self._fold_in(sample)

    def text(self, names: Sequence[str] = ()) -> bytes:
        """The Prometheus text, or only the samples of these names."""
        lines: list[str] = []
        wanted = frozenset(names)
        for family in (*self._families.values(), *self._worker_families.values()):
            samples = [s for s in _samples(family) if not wanted or s[0] in wanted]
            if wanted and not samples:
                continue
            lines.append(
                f"# HELP {family.name} Torchserve prometheus {family.kind} metric"
                f" with unit: {family.unit}"
            )
            lines.append(f"# TYPE {family.name} {family.kind}")
            lines += [f"{name}{labels} {_java_double(value)}" for name, labels, value in samples]
        return "".join(f"{line}\n" for line in lines).encode("utf-8", "replace")

    def _declare(self, name: str, kind: str, unit: str, label_names: Labels) -> Family:
        family = Family(name, kind, unit, label_names)
        self._families[name] = family
        return family

    def _fold_in(self, sample: Metric) -> None:
        if not math.isfinite(sample.value):
            return
        names, values = tuple(sample.dimensions), tuple(sample.dimensions.values())
        key = (sample.name, sample.kind, names, values)
        series = self._known_series.get(key)
        if series is None:
            series = self._find_series(sample)
            if series is None:
                return
            family, labels = series
            # Remembered only where it is spelled as it is printed: so as often as it exists.
            if (family.name, family.label_names[:-1], labels[:-1]) == (sample.name, names, values):
                self._known_series[key] = series
        family, labels = series
        family.record(labels, sample.value)

    def _find_series(self, sample: Metric) -> tuple[Family, Labels] | None:
        """Where a sample belongs, which may be new; None where it has no place."""
        name = _metric_name(sample.name)
        if len(sample.dimensions) > MAX_LABELS:
            return None
        if name in self._families or sample.kind not in ("counter", "gauge", "histogram"):
            return None
        dimensions = {_label_name(key): value for key, value in sample.dimensions.items()}
        dimensions["Hostname"] = self._hostname
        label_names = tuple(dimensions)
        labels = tuple(value[:MAX_LABEL_CHARACTERS] for value in dimensions.values())
        family = self._worker_families.get(name)
        if family is None:
            if len(self._worker_families) >= MAX_WORKER_FAMILIES:
                return None
            family = Family(name, sample.kind, _one_line(sample.unit), label_names)
            self._worker_families[name] = family
        if family.kind != sample.kind or family.label_names != label_names:
            return None
        if not family.has(labels):
            if self._worker_series >= MAX_WORKER_SERIES:
                return None
            self._worker_series += 1
        return family, labels


def _samples(family: Family) -> Iterable[tuple[str, str, float]]:
    values = family.values.items() if family.reading is None else family.reading()
    for labels, value in values:
        yield family.name, _label_text(family.label_names, labels), value
    for labels, histogram in family.histograms.items():
        count = 0
        for bound, in_bucket in zip((*BUCKETS, math.inf), histogram.counts, strict=True):
            count += in_bucket
            bucket = _label_text((*family.label_names, "le"), (*labels, _java_double(bound)))
            yield f"{family.name}_bucket", bucket, float(count)
        text = _label_text(family.label_names, labels)
        yield f"{family.name}_count", text, float(count)
        yield f"{family.name}_sum", text, histogram.total


def _label_text(names: Labels, values: Labels) -> str:
    # TorchServe's exporter leaves a comma behind the last label
    return "{" + "".join(f'{n}="{_escaped(v)}",' for n, v in zip(names, values, strict=True)) + "}"


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def _java_double(value: float) -> str:
    if math.isinf(value):
        return "+Inf" if value > 0 else "-Inf"
    text = repr(float(value)).replace("e+", "E").replace("e", "E")
    if "E" not in text and abs(value) >= 1e7:
        # Java: from ten million on in scientific notation
        digits = f"{value:.17g}" if abs(value) < 1e17 else text
        mantissa, _, exponent = f"{float(digits):.16e}".partition("e")
        mantissa = mantissa.rstrip("0")
        text = f"{mantissa}{'0' if mantissa.endswith('.') else ''}E{int(exponent)}"
    return text


def _metric_name(name: str) -> str:
    cleaned = re.sub(r"[^a-zA-Z0-9_:]", "_", name[:MAX_NAME_CHARACTERS])
    return cleaned if re.match(r"[a-zA-Z_:]", cleaned) else f"_{cleaned}"


def _label_name(name: str) -> str:
    return _metric_name(name).replace(":", "_")


def _one_line(text: str) -> str:
    return re.sub(r"[\x00-\x1f\x7f\\]", " ", text[:MAX_LABEL_CHARACTERS])
