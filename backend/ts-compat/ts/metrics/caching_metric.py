"""A metric known to the cache: its declared dimensions, and the rule that values must fit them."""

import socket
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from ts.metrics.dimension import Dimension
from ts.metrics.metric_cache_errors import MetricsCacheValueError
from ts.metrics.metric_type_enum import MetricTypes
from ts.metrics.unit import full_unit


@dataclass(slots=True)  # not frozen, as there is one for every prediction: see runtime/messages.py
class Emission:
    """One recorded value, on its way out of the handler."""

    name: str
    value: Any
    unit: str
    metric_type: MetricTypes
    dimensions: dict[str, str]
    request_id: str


Sink: TypeAlias = Callable[[Emission], None]


def print_emission(emission: Emission) -> None:
    """Write TorchServe's metric line to stdout: what happens outside a Torchkeep worker."""
    request_id = f",{emission.request_id}" if emission.request_id else ""
    sys.stdout.write(
        f"[METRICS]{emission.name}.{emission.unit}:{emission.value}|#{_labels(emission.dimensions)}"
        f"|#type:{emission.metric_type.name}"
        f"|#hostname:{socket.gethostname()},{int(time.time())}{request_id}\n"
    )
    sys.stdout.flush()


class CachingMetric:
    """Holds no value: every update is emitted at once, to be added up by the frontend."""

    def __init__(
        self,
        metric_name: str,
        unit: str | None,
        dimension_names: list[str] | None = None,
        metric_type: MetricTypes = MetricTypes.COUNTER,
        sink: Sink = print_emission,
    ) -> None:
        self.metric_name = metric_name
        self.unit = full_unit(unit)
        self.dimension_names = list(dimension_names or [])
        self.metric_type = metric_type
        self._sink = sink

    def add_or_update(
        self, value: Any, dimension_values: Sequence[str] = (), request_id: str = ""
    ) -> None:
        """Emit `value`. What does not fit is reported on stdout and dropped, never raised."""
        try:
            self._check(value, dimension_values)
        except MetricsCacheValueError as error:
            fits = len(dimension_values) == len(self.dimension_names)
            labels = _labels(self._dimensions(dimension_values)) if fits else ""
            sys.stdout.write(
                f"[METRICS]Failed to update metric with name:{self.metric_name} and "
                f"dimensions: {labels} with value: {value}: {error}\n"
            )
            return
        self.emit_metrics(value, dimension_values, request_id)

    def update(
        self, value: Any, request_id: str = "", dimensions: Sequence[Dimension] | None = None
    ) -> None:
        """The legacy form: the given dimensions replace the declared ones."""
        self.dimension_names = [dimension.name for dimension in dimensions or ()]
        values = [str(dimension.value) for dimension in dimensions or ()]
        self.add_or_update(value, values, request_id)

    def emit_metrics(
        self, value: Any, dimension_values: Sequence[str] = (), request_id: str = ""
    ) -> None:
        """Emit without checking."""
        dimensions = self._dimensions(dimension_values)
        self._sink(
            Emission(self.metric_name, value, self.unit, self.metric_type, dimensions, request_id)
        )

    def _dimensions(self, values: Sequence[str]) -> dict[str, str]:
        return dict(zip(self.dimension_names, map(str, values), strict=False))

    def _check(self, value: Any, dimension_values: Sequence[str]) -> None:
        if len(dimension_values) != len(self.dimension_names):
            raise MetricsCacheValueError(
                f"Dimension values: {list(dimension_values)} should correspond to "
                f"Dimension names: {self.dimension_names}"
            )
        if self.metric_type is MetricTypes.COUNTER and value < 0:
            raise MetricsCacheValueError("Counter metric update value cannot be negative")


def _labels(dimensions: dict[str, str]) -> str:
    return ",".join(f"{name}:{value}" for name, value in dimensions.items())
