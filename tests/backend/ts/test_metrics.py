"""`context.metrics`: defaults, rules and error texts."""

from pathlib import Path
from typing import Any

import pytest

from ts.metrics import metric_cache_errors as errors
from ts.metrics.caching_metric import CachingMetric, Emission
from ts.metrics.dimension import Dimension
from ts.metrics.metric import Metric
from ts.metrics.metric_cache_yaml_impl import MetricsCacheYamlImpl
from ts.metrics.metric_type_enum import MetricTypes
from ts.metrics.metrics_store import MetricsStore


@pytest.fixture
def emissions() -> list[Emission]:
    return []


@pytest.fixture
def metrics(emissions: list[Emission]) -> MetricsCacheYamlImpl:
    cache = MetricsCacheYamlImpl(sink=emissions.append)
    cache.initialize_cache()
    cache.model_name = "m"
    cache.set_request_ids({0: "a", 1: "b"})
    return cache


MODEL = {"ModelName": "m", "Level": "Model"}
GAUGE, COUNTER = MetricTypes.GAUGE, MetricTypes.COUNTER


def test_the_shipped_file_declares_the_two_default_metrics(metrics: MetricsCacheYamlImpl) -> None:
    assert metrics.cache_keys() == ["gauge:HandlerTime", "gauge:PredictionTime"]


@pytest.mark.parametrize(
    ("method", "arguments", "unit", "kind"),
    [
        ("add_counter", {}, "Count", COUNTER),
        ("add_time", {}, "Milliseconds", GAUGE),
        ("add_time", {"unit": "s"}, "Seconds", GAUGE),
        ("add_size", {}, "Megabytes", GAUGE),
        ("add_size", {"unit": "kB"}, "Kilobytes", GAUGE),
        ("add_size", {"unit": "GB"}, "Gigabytes", GAUGE),
        ("add_size", {"unit": "B"}, "Bytes", GAUGE),
        ("add_percent", {}, "Percent", GAUGE),
        ("add_metric", {"unit": "apples"}, "apples", COUNTER),
        ("add_metric", {"unit": ""}, "unit", COUNTER),
        ("add_time", {"metric_type": MetricTypes.HISTOGRAM}, "Milliseconds", MetricTypes.HISTOGRAM),
    ],
)
def test_units_and_types_of_the_add_methods(
    metrics: MetricsCacheYamlImpl,
    emissions: list[Emission],
    method: str,
    arguments: dict[str, Any],
    unit: str,
    kind: MetricTypes,
) -> None:
    getattr(metrics, method)("N", 3, **arguments)
    assert emissions == [Emission("N", 3, unit, kind, MODEL, "a,b")]


def test_an_index_picks_one_request(
    metrics: MetricsCacheYamlImpl, emissions: list[Emission]
) -> None:
    metrics.add_counter("N", 1, 1)
    metrics.add_counter("N", 1, 7)
    assert [emission.request_id for emission in emissions] == ["b", "a,b"]


def test_default_dimensions_come_last_in_the_callers_own_list(
    metrics: MetricsCacheYamlImpl, emissions: list[Emission]
) -> None:
    dimensions = [Dimension("Colour", "red"), Dimension("Level", "Mine")]
    metrics.add_counter("N", 1, dimensions=dimensions)
    assert [str(one) for one in dimensions] == ["Colour:red", "Level:Mine", "ModelName:m"]
    assert emissions[0].dimensions == {"Colour": "red", "Level": "Mine", "ModelName": "m"}


def test_add_error_carries_no_request_id(
    metrics: MetricsCacheYamlImpl, emissions: list[Emission]
) -> None:
    metrics.add_error("N", 1)
    assert emissions == [Emission("N", 1, "unit", COUNTER, {"Level": "Error"}, "")]


@pytest.mark.parametrize("request_ids", [None, {}])
def test_outside_a_batch_there_is_no_request_id(
    metrics: MetricsCacheYamlImpl, emissions: list[Emission], request_ids: Any
) -> None:
    metrics.set_request_ids(request_ids)
    metrics.add_counter("N", 1)
    assert emissions == [Emission("N", 1, "Count", COUNTER, MODEL, "")]


def test_a_wrong_number_of_dimensions_is_told_and_dropped(
    metrics: MetricsCacheYamlImpl, emissions: list[Emission], capsys: pytest.CaptureFixture[str]
) -> None:
    metrics.add_time("HandlerTime", 5, dimensions=[Dimension("Colour", "red")])
    assert emissions == []
    assert capsys.readouterr().out == (
        "[METRICS]Failed to update metric with name:HandlerTime and dimensions:"
        "  with value: 5: Dimension values: ['red', 'm', 'Model'] "
        "should correspond to Dimension names: ['ModelName', 'Level']\n"
    )


def test_a_negative_counter_is_told_and_dropped(
    metrics: MetricsCacheYamlImpl, emissions: list[Emission], capsys: pytest.CaptureFixture[str]
) -> None:
    metrics.add_counter("N", -1)
    assert emissions == []
    assert capsys.readouterr().out == (
        "[METRICS]Failed to update metric with name:N and dimensions: ModelName:m,Level:Model "
        "with value: -1: Counter metric update value cannot be negative\n"
    )
    metrics.add_percent("N", -1)
    assert len(emissions) == 1


def test_error_texts(metrics: MetricsCacheYamlImpl) -> None:
    with pytest.raises(errors.MetricsCacheValueError, match=r"one of \['ms', 's'\]"):
        metrics.add_time("N", 1, unit="h")
    with pytest.raises(ValueError, match=r"one of \['MB','kB', 'GB', 'B'\]"):
        metrics.add_size("N", 1, unit="TB")
    with pytest.raises(
        errors.MetricsCacheKeyError,
        match=r"Metric of type 'MetricTypes.COUNTER' and name 'X' doesn't exist",
    ):
        metrics.get_metric("X")


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ((3, "ms"), "`metric_name` must be a str"),
        (("N", None), "`unit` must be a str"),
        (("N", "ms", "a"), "`dimension_names` should be a list of dimension name strings"),
        (("N", "ms", ["a"], "counter"), "`metric_type` must be a MetricTypes enum"),
    ],
)
def test_arguments_of_a_wrong_type_are_errors(
    metrics: MetricsCacheYamlImpl, arguments: Any, complaint: str
) -> None:
    with pytest.raises(errors.MetricsCacheTypeError, match=f"^{complaint}$"):
        metrics.add_metric_to_cache(*arguments)


def test_a_name_may_exist_once_per_type(metrics: MetricsCacheYamlImpl) -> None:
    gauge = metrics.add_metric_to_cache("N", "ms", ["a"], GAUGE)
    counter = metrics.add_metric_to_cache("N", "ms", ["a"])
    assert metrics.get_metric("N", GAUGE) is gauge
    assert metrics.get_metric("N") is counter
    assert metrics.add_metric_to_cache("N", "ms", ["a"]) is not counter


def test_a_metric_of_the_cache_is_emitted_on_update(
    metrics: MetricsCacheYamlImpl, emissions: list[Emission]
) -> None:
    metric = metrics.add_metric_to_cache("N", "ms", ["a", "b"])
    assert emissions == []
    metric.add_or_update(2, ["1", "2"])
    metric.update(3, "r", [Dimension("c", "4")])
    metric.update(5, "r")
    assert emissions == [
        Emission("N", 2, "Milliseconds", COUNTER, {"a": "1", "b": "2"}, ""),
        Emission("N", 3, "Milliseconds", COUNTER, {"c": "4"}, "r"),
        Emission("N", 5, "Milliseconds", COUNTER, {}, "r"),
    ]


def test_outside_a_worker_the_line_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    CachingMetric("N", "ms", ["a"], GAUGE).add_or_update(1.5, ["x"], "r")
    printed = capsys.readouterr().out
    assert printed.startswith("[METRICS]N.Milliseconds:1.5|#a:x|#type:GAUGE|#hostname:")
    assert printed.endswith(",r\n")


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("ts_metrics: {}", errors.MetricsCacheKeyError),
        ("", errors.MetricsCacheKeyError),
        ("[", errors.MetricsCachePyYamlError),
        ("model_metrics: [1]", errors.MetricsCacheTypeError),
        ("model_metrics: {timer: []}", errors.MetricsCacheTypeError),
        ("model_metrics: {gauge: [{name: a}]}", errors.MetricsCacheKeyError),
        (
            "model_metrics: {gauge: [{name: '', unit: ms, dimensions: []}]}",
            errors.MetricsCacheValueError,
        ),
    ],
)
def test_a_bad_file_is_refused(tmp_path: Path, text: str, error: type[Exception]) -> None:
    (tmp_path / "metrics.yaml").write_text(text)
    with pytest.raises(error):
        MetricsCacheYamlImpl(str(tmp_path / "metrics.yaml")).initialize_cache()


def test_the_text_of_the_file_may_be_given_instead(emissions: list[Emission]) -> None:
    text = "model_metrics: {histogram: [{name: N, unit: ms, dimensions: [a]}]}"
    metrics = MetricsCacheYamlImpl("/nowhere/metrics.yaml", emissions.append, text)
    metrics.initialize_cache()
    assert metrics.config_file_path == "/nowhere/metrics.yaml"
    assert metrics.cache_keys() == ["histogram:N"]


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(errors.MetricsCacheIOError):
        MetricsCacheYamlImpl(str(tmp_path / "none.yaml")).initialize_cache()


def test_the_legacy_store_collects_metrics() -> None:
    store = MetricsStore({0: "a"}, "m")
    store.add_counter("N", 1)
    store.add_counter("N", 2)
    store.add_time("T", 5, 0)
    store.add_error("E", 1)
    assert [(metric.name, metric.value) for metric in store.store] == [("N", 3), ("T", 5), ("E", 1)]
    assert [str(one) for one in store.store[0].dimensions] == ["ModelName:m", "Level:Model"]


def test_a_legacy_metric() -> None:
    metric = Metric("N", 1, "ms", [Dimension("a", "b")], "r", "counter")
    metric.update(2)
    assert metric.to_dict()["Value"] == 3
    assert metric.to_dict()["Dimensions"] == [{"Name": "a", "Value": "b"}]
    assert str(metric).startswith("N.Milliseconds:3|#a:b|#hostname:")
    metric.reset()
    assert metric.value == 0


@pytest.mark.parametrize(
    ("error", "builtin"),
    [
        (errors.MetricsCacheIOError, OSError),
        (errors.MetricsCacheTypeError, TypeError),
        (errors.MetricsCacheValueError, ValueError),
        (errors.MetricsCacheKeyError, KeyError),
    ],
)
def test_errors_can_be_caught_as_pythons_own(
    error: type[Exception], builtin: type[Exception]
) -> None:
    assert issubclass(error, builtin)
