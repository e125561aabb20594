"""`context.metrics`: the metrics declared in metrics.yaml and those that a handler adds."""

import os
from collections.abc import Sequence
from typing import Any

import yaml

from ts.metrics.caching_metric import CachingMetric, Sink, print_emission
from ts.metrics.dimension import Dimension
from ts.metrics.metric_cache_errors import (
    MetricsCacheIOError,
    MetricsCacheKeyError,
    MetricsCachePyYamlError,
    MetricsCacheTypeError,
    MetricsCacheValueError,
)
from ts.metrics.metric_type_enum import MetricTypes

DEFAULT_METRICS_FILE = os.path.join(
    os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "configs", "metrics.yaml"
)


class MetricsCacheYamlImpl:
    """Records values by name; a name may exist once per type of metric."""

    def __init__(
        self,
        config_file_path: str = DEFAULT_METRICS_FILE,
        sink: Sink = print_emission,
        config_text: str | None = None,  # of that file, where the server has read it already
    ) -> None:
        self.config_file_path = config_file_path
        self.cache: dict[MetricTypes, dict[str, CachingMetric]] = {kind: {} for kind in MetricTypes}
        self.store: list[Any] = []
        self.request_ids: dict[int, str] | None = None
        self.model_name = ""
        self._sink = sink
        self._config_text = config_text

    def initialize_cache(self) -> None:
        """Read the section `model_metrics` of the configuration file."""
        for kind, declared in self._model_metrics().items():
            try:
                metric_type = MetricTypes(kind)
            except ValueError:
                raise MetricsCacheTypeError(f"{kind} is no type of metric") from None
            for metric in declared or []:
                try:
                    name, unit = metric["name"], metric["unit"]
                    dimension_names = metric["dimensions"]
                except (KeyError, TypeError) as error:
                    raise MetricsCacheKeyError(f"a {kind} lacks {error}") from error
                if not name or not unit:
                    raise MetricsCacheValueError(f"a {kind} has an empty name or unit")
                self.add_metric_to_cache(name, unit, dimension_names, metric_type)

    def cache_keys(self) -> list[str]:
        """All known metrics, each as `type:name`."""
        return [f"{kind.value}:{name}" for kind, metrics in self.cache.items() for name in metrics]

    def set_request_ids(self, request_ids: dict[int, str]) -> None:
        self.request_ids = request_ids

    def add_counter(
        self,
        name: str,
        value: float,
        idx: int | None = None,
        dimensions: list[Dimension] | None = None,
    ) -> None:
        self.add_metric(name, value, "count", idx, dimensions, MetricTypes.COUNTER)

    def add_time(
        self,
        name: str,
        value: float,
        idx: int | None = None,
        unit: str = "ms",
        dimensions: list[Dimension] | None = None,
        metric_type: MetricTypes = MetricTypes.GAUGE,
    ) -> None:
        if unit not in ("ms", "s"):
            raise MetricsCacheValueError("the unit for a timed metric should be one of ['ms', 's']")
        self.add_metric(name, value, unit, idx, dimensions, metric_type)

    def add_size(
        self,
        name: str,
        value: float,
        idx: int | None = None,
        unit: str = "MB",
        dimensions: list[Dimension] | None = None,
        metric_type: MetricTypes = MetricTypes.GAUGE,
    ) -> None:
        if unit not in ("MB", "kB", "GB", "B"):
            # TorchServe: the builtin error, unlike add_time.
            raise ValueError("The unit for size based metric is one of ['MB','kB', 'GB', 'B']")
        self.add_metric(name, value, unit, idx, dimensions, metric_type)

    def add_percent(
        self,
        name: str,
        value: float,
        idx: int | None = None,
        dimensions: list[Dimension] | None = None,
        metric_type: MetricTypes = MetricTypes.GAUGE,
    ) -> None:
        self.add_metric(name, value, "percent", idx, dimensions, metric_type)

    def add_error(self, name: str, value: float, dimensions: list[Dimension] | None = None) -> None:
        """Count an error of the worker, not of a request: it carries no request ids."""
        dimensions = [] if dimensions is None else dimensions
        _append_missing(dimensions, Dimension("Level", "Error"))
        self._record(name, value, "", "", dimensions, MetricTypes.COUNTER)

    def add_metric(
        self,
        name: str,
        value: float,
        unit: str,
        idx: int | None = None,
        dimensions: list[Dimension] | None = None,
        metric_type: MetricTypes = MetricTypes.COUNTER,
    ) -> None:
        """Record `value` for the request `idx`, or for all of the batch."""
        if dimensions is None:
            dimensions = [Dimension("ModelName", self.model_name), Dimension("Level", "Model")]
        else:
            # TorchServe: the defaults come last and grow the caller's own list.
            _append_missing(dimensions, Dimension("ModelName", self.model_name))
            _append_missing(dimensions, Dimension("Level", "Model"))
        self._record(name, value, unit, self._request_id(idx), dimensions, metric_type)

    def add_metric_to_cache(
        self,
        metric_name: str,
        unit: str,
        dimension_names: Sequence[str] = (),
        metric_type: MetricTypes = MetricTypes.COUNTER,
    ) -> CachingMetric:
        """Declare a metric, in place of any of this name and type; nothing is emitted."""
        _check_type(metric_name, str, "`metric_name` must be a str")
        _check_type(unit, str, "`unit` must be a str")
        _check_type(
            dimension_names,
            (list, tuple),
            "`dimension_names` should be a list of dimension name strings",
        )
        _check_type(metric_type, MetricTypes, "`metric_type` must be a MetricTypes enum")
        metric = CachingMetric(metric_name, unit, list(dimension_names), metric_type, self._sink)
        self.cache[metric_type][metric_name] = metric
        return metric

    def get_metric(
        self, metric_name: str, metric_type: MetricTypes = MetricTypes.COUNTER
    ) -> CachingMetric:
        _check_type(metric_name, str, "`metric_name` must be a str")
        _check_type(metric_type, MetricTypes, "`metric_type` must be a MetricTypes enum")
        metric = self.cache[metric_type].get(metric_name)
        if metric is None:
            raise MetricsCacheKeyError(
                f"Metric of type '{metric_type}' and name '{metric_name}' doesn't exist"
            )
        return metric

    def _record(
        self,
        name: str,
        value: float,
        unit: str,
        request_id: str,
        dimensions: list[Dimension],
        metric_type: MetricTypes,
    ) -> None:
        try:
            metric = self.get_metric(name, metric_type)
        except MetricsCacheKeyError:
            names = [dimension.name for dimension in dimensions]
            metric = self.add_metric_to_cache(name, unit, names, metric_type)
        metric.add_or_update(value, [str(dimension.value) for dimension in dimensions], request_id)

    def _request_id(self, idx: int | None) -> str:
        if not self.request_ids:
            return ""
        if idx in self.request_ids:
            return self.request_ids[idx]
        return ",".join(self.request_ids.values())

    def _model_metrics(self) -> dict[str, Any]:
        try:
            text = self._config_text
            if text is None:
                with open(self.config_file_path, encoding="utf-8") as file:
                    text = file.read()
            declared = yaml.safe_load(text)
        except OSError as error:
            raise MetricsCacheIOError(f"{self.config_file_path}: {error}") from error
        except yaml.YAMLError as error:
            raise MetricsCachePyYamlError(f"{self.config_file_path}: {error}") from error
        if not isinstance(declared, dict) or "model_metrics" not in declared:
            raise MetricsCacheKeyError("'model_metrics' key not found in yaml file")
        section = declared["model_metrics"] or {}
        if not isinstance(section, dict):
            raise MetricsCacheTypeError("model_metrics must map types to lists of metrics")
        return section


def _append_missing(dimensions: list[Dimension], default: Dimension) -> None:
    if all(dimension.name != default.name for dimension in dimensions):
        dimensions.append(default)


def _check_type(value: Any, expected: type | tuple[type, ...], complaint: str) -> None:
    if not isinstance(value, expected):
        raise MetricsCacheTypeError(complaint)
