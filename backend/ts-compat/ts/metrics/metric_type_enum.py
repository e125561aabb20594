"""The kinds of metrics."""

from enum import Enum


class MetricTypes(Enum):
    """Values are the section names of metrics.yaml."""

    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"
