"""Metrics as the Prometheus text that TorchServe's tools read.

Written by hand instead of with prometheus-client, which cannot print TorchServe's names (it
appends `_total` to every counter) nor its spelling of samples. Everything runs in the event
loop's thread, so there are no locks.
"""

import math
import re
from bisect import bisect_left
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from torchkeep.runtime.metric_log import java_double

TEXT_TYPE = b"text/plain; version=0.0.4; charset=utf-8"
BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0)

# A handler chooses the names and labels of its metrics. It must not break the text with them.
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


def prometheus_text(families: Iterable[Family], names: Sequence[str] = ()) -> bytes:
    """All of it, or only the samples of these names."""
    lines: list[str] = []
    wanted = frozenset(names)
    for family in families:
        samples = [s for s in _samples(family) if not wanted or s[0] in wanted]
        if wanted and not samples:
            continue
        lines.append(
            f"# HELP {family.name} Torchserve prometheus {family.kind} metric"
            f" with unit: {family.unit}"
        )
        lines.append(f"# TYPE {family.name} {family.kind}")
        lines += [f"{name}{labels} {java_double(value)}" for name, labels, value in samples]
    return "".join(f"{line}\n" for line in lines).encode("utf-8", "replace")


def _samples(family: Family) -> Iterable[tuple[str, str, float]]:
    values = family.values.items() if family.reading is None else family.reading()
    for labels, value in values:
        yield family.name, _label_text(family.label_names, labels), value
    for labels, histogram in family.histograms.items():
        count = 0
        for bound, in_bucket in zip((*BUCKETS, math.inf), histogram.counts, strict=True):
            count += in_bucket
            bucket = _label_text((*family.label_names, "le"), (*labels, java_double(bound)))
            yield f"{family.name}_bucket", bucket, float(count)
        text = _label_text(family.label_names, labels)
        yield f"{family.name}_count", text, float(count)
        yield f"{family.name}_sum", text, histogram.total


def _label_text(names: Labels, values: Labels) -> str:
    # TorchServe's exporter leaves a comma behind the last label
    return "{" + "".join(f'{n}="{_escaped(v)}",' for n, v in zip(names, values, strict=True)) + "}"


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def metric_name(name: str) -> str:
    cleaned = re.sub(r"[^a-zA-Z0-9_:]", "_", name[:MAX_NAME_CHARACTERS])
    return cleaned if re.match(r"[a-zA-Z_:]", cleaned) else f"_{cleaned}"


def label_name(name: str) -> str:
    return metric_name(name).replace(":", "_")


def one_line(text: str) -> str:
    return re.sub(r"[\x00-\x1f\x7f\\]", " ", text[:MAX_LABEL_CHARACTERS])
