"""metrics.yaml: TorchServe's form loads, everything else says what is wrong."""

import pytest

from torchkeep.frontend.metrics_config import (
    MetricsConfig,
    MetricsConfigError,
    MetricSpec,
    parse_metrics_config,
)

TORCHSERVES = """
dimensions:
  - &model_name "ModelName"
  - &level "Level"

ts_metrics:
  counter:
    - name: Requests2XX
      unit: Count
      dimensions: [*level, "Hostname"]
  histogram:
    - name: QueueTime
      unit: Milliseconds
      dimensions: [*level, "Hostname"]

model_metrics:
  # Dimension "Hostname" is automatically added for model metrics in the backend
  gauge:
    - name: HandlerTime
      unit: ms
      dimensions: [*model_name, *level]
"""


HOST = ("Level", "Hostname")


def test_a_torchserve_metrics_yaml_loads_unchanged() -> None:
    assert parse_metrics_config(TORCHSERVES) == MetricsConfig(
        {
            "Requests2XX": MetricSpec("Requests2XX", "counter", "Count", ("Level", "Hostname")),
            "QueueTime": MetricSpec(
                "QueueTime", "histogram", "Milliseconds", ("Level", "Hostname")
            ),
        },
        {"HandlerTime": MetricSpec("HandlerTime", "gauge", "ms", ("ModelName", "Level"))},
    )


@pytest.mark.parametrize("text", ["ts_metrics:\nmodel_metrics:\n", "{}", "ts_metrics: {gauge: }"])
def test_nothing_need_be_declared(text: str) -> None:
    assert parse_metrics_config(text) == MetricsConfig()


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "expected a map"),
        ("[1, 2]", "expected a map"),
        ("a: [", "no yaml"),
        ("a: !!python/object/apply:os.system [id]", "no yaml"),
        ("a: !!int x", "no yaml"),
        ("a: " + "[" * 2000, "no yaml"),
        ("ts_metrics: [1]", "ts_metrics is no map of counter, gauge, histogram"),
        ("ts_metrics: {meter: []}", "ts_metrics.meter: expected one of counter"),
        ("model_metrics: {gauge: 3}", "model_metrics.gauge is no list"),
        ("model_metrics: {gauge: [N]}", "no map of a metric"),
        ("model_metrics: {gauge: [{name: '', unit: ms, dimensions: []}]}", "no name or no unit"),
        ("model_metrics: {gauge: [{name: N, unit: '', dimensions: []}]}", "no name or no unit"),
        ("model_metrics: {gauge: [{name: N, unit: ms}]}", "N has no list of dimensions"),
    ],
)
def test_what_cannot_be_used_is_named(text: str, complaint: str) -> None:
    with pytest.raises(MetricsConfigError, match=complaint):
        parse_metrics_config(text)
