"""Records a metric of every kind, and says something on both pipes."""

import logging
import sys

from ts.metrics.dimension import Dimension
from ts.metrics.metric_type_enum import MetricTypes

logging.basicConfig(level=logging.DEBUG, format="mine %(message)s")  # TorchServe's stays


def handle(data, context):
    if not data:
        return None
    metrics = context.metrics
    print("hello stdout")
    print("hello stderr", file=sys.stderr)
    logging.getLogger(__name__).info("hello logger")
    logging.getLogger(__name__).debug("hello debugger")
    metrics.add_counter("Unknown", 2)
    metrics.add_time("DeclaredTime", 3.25)
    metrics.add_counter("DeclaredCount", 1)
    metrics.add_counter("DeclaredCount", -1)
    metrics.add_metric("DeclaredHistogram", 0.3, "s", None, [], MetricTypes.HISTOGRAM)
    metrics.add_error("SomeError", 1)
    metrics.add_percent("Big", 123456789.5)
    metrics.add_size("Tiny", 0.0001)
    metrics.get_metric("DeclaredTime", MetricTypes.GAUGE).add_or_update(7, ["metered", "Model"])
    metrics.add_counter("DeclaredCount", 1, None, [Dimension("a", "b")])
    return [row.get("body") or row.get("data") for row in data]
