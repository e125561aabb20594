"""What handlers measure, on its way into the Prometheus text or a log.

A handler chooses names and labels. What it may not have is dropped, never an error: it must not
fill our memory, nor take the place of the server's own metrics.
"""

import logging
import math
from collections.abc import Iterable, Mapping
from typing import Protocol

from torchkeep.frontend.metrics_config import KINDS, MetricSpec
from torchkeep.frontend.prometheus import (
    MAX_LABEL_CHARACTERS,
    Family,
    Labels,
    label_name,
    metric_name,
    one_line,
)
from torchkeep.runtime.messages import Metric
from torchkeep.runtime.metric_log import MetricLog, Series, java_double, series

log = logging.getLogger(__name__)

MAX_WORKER_FAMILIES = 500
MAX_WORKER_SERIES = 10_000
MAX_LABELS = 16


class WorkerMetrics(Protocol):
    def record(self, sample: Metric) -> None: ...


class Declared:
    """What metrics.yaml says of the metrics of models, and whether others are taken too."""

    def __init__(
        self, specs: Mapping[str, MetricSpec], detects_others: bool, hostname: str
    ) -> None:
        self._specs = specs
        self._hostname = hostname
        self._detects_others = detects_others
        self._detected: dict[str, MetricSpec] = {}
        self._misfits: set[str] = set()

    def all(self) -> Iterable[MetricSpec]:
        return self._specs.values()

    def spec(self, sample: Metric) -> MetricSpec | None:
        """How the metric of this sample is declared; None where the sample has no place."""
        spec = self._specs.get(sample.name)
        if spec is not None:
            # TorchServe: labels are told by their places, whatever the handler calls them.
            is_fitting = len(sample.dimensions) == len(spec.label_names)
        else:
            spec = self._detected.get(sample.name) or self._detect(sample)
            is_fitting = spec is not None and tuple(sample.dimensions) == spec.label_names
        if spec is not None and not is_fitting:
            self._complain(sample, spec)
            return None
        return spec

    def _detect(self, sample: Metric) -> MetricSpec | None:
        if not self._detects_others or sample.kind not in KINDS:
            return None
        if len(sample.dimensions) > MAX_LABELS or len(self._detected) >= MAX_WORKER_FAMILIES:
            return None
        spec = MetricSpec(sample.name, sample.kind, sample.unit, tuple(sample.dimensions))
        self._detected[sample.name] = spec
        labels = (*sample.dimensions.values(), self._hostname)
        of = series(spec.name, spec.unit, (*spec.label_names, "Hostname"), labels)
        line = f"{of.head}{java_double(sample.value)}{of.tail}"
        log.info("Registering auto detected backend metric: %s", line.rstrip(","))
        return spec

    def _complain(self, sample: Metric, spec: MetricSpec) -> None:
        """Once for each metric: there may be thousands of samples a second."""
        if sample.name not in self._misfits and len(self._misfits) < MAX_WORKER_FAMILIES:
            self._misfits.add(sample.name)
            log.error(
                "Failed to update backend metric %s: expected the dimensions %s",
                one_line(sample.name),
                ", ".join(spec.label_names) or "none",
            )


class WorkerFamilies:
    """Adds up what was measured, for whoever scrapes it."""

    def __init__(self, declared: Declared, taken: Mapping[str, Family], hostname: str) -> None:
        self.families: dict[str, Family] = {}
        self._declared = declared
        self._taken = taken  # the server's own, by name
        self._hostname = hostname
        self._series_count = 0
        self._known: dict[tuple[str, str, Labels, Labels], tuple[Family, Labels]] = {}
        for spec in declared.all():
            self._family(spec)

    def record(self, sample: Metric) -> None:
        if not math.isfinite(sample.value):
            return
        names, values = tuple(sample.dimensions), tuple(sample.dimensions.values())
        key = (sample.name, sample.kind, names, values)
        found = self._known.get(key)
        if found is None:
            found = self._find(sample, values)
            if found is None:
                return
            family, labels = found
            # Remembered only where it is spelled as it is printed: so as often as it exists.
            if (family.name, family.label_names[:-1], labels[:-1]) == (sample.name, names, values):
                self._known[key] = found
        family, labels = found
        family.record(labels, sample.value)

    def _find(self, sample: Metric, values: Labels) -> tuple[Family, Labels] | None:
        """Where a sample belongs, which may be new; None where it has no place."""
        spec = self._declared.spec(sample)
        family = self._family(spec) if spec is not None else None
        if family is None:
            return None
        labels = tuple(value[:MAX_LABEL_CHARACTERS] for value in (*values, self._hostname))
        if not family.has(labels):
            if self._series_count >= MAX_WORKER_SERIES:
                return None
            self._series_count += 1
        return family, labels

    def _family(self, spec: MetricSpec) -> Family | None:
        name = metric_name(spec.name)
        if name in self._taken:
            return None
        label_names = (*map(label_name, spec.label_names), "Hostname")
        if len(set(label_names)) < len(label_names):
            return None
        family = self.families.get(name)
        if family is None:
            family = Family(name, spec.kind, one_line(spec.unit), label_names)
            self.families[name] = family
        return family if family.label_names == label_names else None


class WorkerLines:
    """Writes what was measured into model_metrics.log."""

    def __init__(self, declared: Declared, target: MetricLog, hostname: str) -> None:
        self._declared = declared
        self._log = target
        self._hostname = hostname
        self._known: dict[tuple[str, Labels], Series] = {}

    def record(self, sample: Metric) -> None:
        if not math.isfinite(sample.value):
            return
        values = tuple(sample.dimensions.values())
        known = self._known.get((sample.name, values))
        if known is None:
            spec = self._declared.spec(sample)
            if spec is None:
                return
            labels = tuple(value[:MAX_LABEL_CHARACTERS] for value in (*values, self._hostname))
            known = series(spec.name, spec.unit, (*spec.label_names, "Hostname"), labels)
            if len(self._known) >= MAX_WORKER_SERIES:
                self._known.clear()
            self._known[sample.name, values] = known
        self._log.add(known, sample.value, sample.request_id)
