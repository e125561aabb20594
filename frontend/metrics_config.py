"""metrics.yaml: which metrics exist, with their units and labels.

TorchServe's file loads unchanged: `ts_metrics` are the server's own, `model_metrics` those
that handlers record. The workers get the same file.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import yaml

KINDS = ("counter", "gauge", "histogram")
# PyYAML's constructors let their own errors through (`!!int x`, month 13).
CONVERSION_ERRORS = (ValueError, TypeError, LookupError, AttributeError, RecursionError)


class MetricsConfigError(ValueError):
    """The file cannot be used. The server starts all the same, and has no metrics."""


@dataclass(frozen=True, slots=True)
class MetricSpec:
    """One declared metric; the labels of a model's metric lack the host, which comes last."""

    name: str
    kind: str
    unit: str
    label_names: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class MetricsConfig:
    """What is declared, by name."""

    ts_metrics: Mapping[str, MetricSpec] = field(default_factory=dict)
    model_metrics: Mapping[str, MetricSpec] = field(default_factory=dict)


def parse_metrics_config(text: str) -> MetricsConfig:
    """Raises MetricsConfigError, which names the metric and what it lacks."""
    try:
        declared = yaml.safe_load(text)
    except (yaml.YAMLError, *CONVERSION_ERRORS) as error:
        raise MetricsConfigError(f"no yaml: {error}") from error
    if not isinstance(declared, dict):
        raise MetricsConfigError("expected a map with ts_metrics and model_metrics")
    return MetricsConfig(
        {spec.name: spec for spec in _section(declared, "ts_metrics")},
        {spec.name: spec for spec in _section(declared, "model_metrics")},
    )


def _section(declared: dict[Any, Any], section: str) -> Iterator[MetricSpec]:
    kinds = declared.get(section) or {}
    if not isinstance(kinds, dict):
        raise MetricsConfigError(f"{section} is no map of {', '.join(KINDS)}")
    for kind, metrics in kinds.items():
        if kind not in KINDS:
            raise MetricsConfigError(f"{section}.{kind}: expected one of {', '.join(KINDS)}")
        if not isinstance(metrics, list | None):
            raise MetricsConfigError(f"{section}.{kind} is no list of metrics")
        for metric in metrics or ():
            yield _spec(f"{section}.{kind}", kind, metric)


def _spec(place: str, kind: str, metric: object) -> MetricSpec:
    if not isinstance(metric, dict):
        raise MetricsConfigError(f"{place} holds {metric!r}, which is no map of a metric")
    name, unit, dimensions = (metric.get(key) for key in ("name", "unit", "dimensions"))
    if not name or not unit:
        raise MetricsConfigError(f"{place}: a metric has no name or no unit: {metric!r}")
    if not isinstance(dimensions, list):
        raise MetricsConfigError(f"{place}: {name} has no list of dimensions")
    return MetricSpec(str(name), kind, str(unit), tuple(map(str, dimensions)))
