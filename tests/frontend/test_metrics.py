"""The Prometheus text, and that a worker cannot harm us with its metrics."""

from typing import Any

import pytest

from torchkeep.frontend import metrics as module
from torchkeep.frontend.metrics import MAX_WORKER_SERIES, Metrics
from torchkeep.runtime.messages import Metric


def lines(metrics: Metrics, *names: str) -> list[str]:
    return metrics.text(names).decode().splitlines()


def sample(name: str = "Work", **changes: Any) -> Metric:
    fields = {"value": 1.0, "unit": "ms", "kind": "gauge", "dimensions": {"Level": "Model"}}
    return Metric(name, **{**fields, **changes})


def test_counters_are_spelled_as_torchserve_does() -> None:
    metrics = Metrics("host")
    for status in (200, 202, 404, 500, 302, 999):
        metrics.response(status)
    assert lines(metrics, "Requests2XX") == [
        "# HELP Requests2XX Torchserve prometheus counter metric with unit: Count",
        "# TYPE Requests2XX counter",
        'Requests2XX{Level="Host",Hostname="host",} 2.0',
    ]
    assert lines(metrics, "Requests4XX")[2].endswith(" 1.0")
    assert lines(metrics, "Requests5XX")[2].endswith(" 3.0")


def test_declared_metrics_have_help_before_their_first_sample() -> None:
    text = Metrics("host").text().decode()
    assert "# TYPE ts_inference_requests_total counter" in text
    assert "{" not in text


def test_latencies_are_microseconds() -> None:
    metrics = Metrics("host")
    metrics.inference_request("m", "default")
    metrics.inference_latency("m", "default", 0.25)
    metrics.queue_latency("m", "default", 0.0025)
    text = metrics.text().decode()
    labels = '{model_name="m",model_version="default",hostname="host",}'
    assert f"ts_inference_requests_total{labels} 1.0" in text
    assert f"ts_inference_latency_microseconds{labels} 250000.0" in text
    assert f"ts_queue_latency_microseconds{labels} 2500.0" in text
    assert 'QueueTime{Level="Host",Hostname="host",} 2.0' in text


def test_load_time_names_its_worker() -> None:
    metrics = Metrics("host")
    metrics.worker_loaded("W-9000-m_1.0", 1.5)
    assert lines(metrics, "WorkerLoadTime")[2] == (
        'WorkerLoadTime{WorkerName="W-9000-m_1.0",Level="Host",Hostname="host",} 1500.0'
    )


def test_gauge_is_read_when_somebody_scrapes() -> None:
    metrics = Metrics("host")
    values = [1.0]
    metrics.observe("queue", "Count", ("model",), lambda: [(("m",), values[0])])
    values[0] = 7.0
    assert lines(metrics, "queue")[2] == 'queue{model="m",} 7.0'


def test_worker_metrics_of_three_kinds() -> None:
    metrics = Metrics("host")
    metrics.worker_metrics([sample("G", value=1.0), sample("G", value=5.0)])
    metrics.worker_metrics([sample("C", kind="counter"), sample("C", kind="counter", value=2.0)])
    metrics.worker_metrics([sample("H", kind="histogram", value=0.3)])
    assert lines(metrics, "G")[2] == 'G{Level="Model",Hostname="host",} 5.0'
    assert lines(metrics, "C")[2] == 'C{Level="Model",Hostname="host",} 3.0'
    histogram = metrics.text().decode()
    assert 'H_bucket{Level="Model",Hostname="host",le="0.25",} 0.0' in histogram
    assert 'H_bucket{Level="Model",Hostname="host",le="0.5",} 1.0' in histogram
    assert 'H_bucket{Level="Model",Hostname="host",le="+Inf",} 1.0' in histogram
    assert 'H_count{Level="Model",Hostname="host",} 1.0' in histogram
    assert 'H_sum{Level="Model",Hostname="host",} 0.3' in histogram


def test_worker_cannot_break_the_text() -> None:
    metrics = Metrics("host")
    metrics.worker_metrics(
        [
            sample('evil"} 1\nRequests2XX', unit="m\ns", dimensions={"a\nb": 'x"\n\\'}),
            sample("9lives"),
            sample("", dimensions={}),
        ]
    )
    for line in lines(metrics):
        assert line.startswith(("# ", "evil___1_Requests2XX{", "_9lives{", "_{"))
    assert r'evil___1_Requests2XX{a_b="x\"\n\\",Hostname="host",} 1.0' in lines(metrics)


@pytest.mark.parametrize(
    "changes",
    [
        {"name": "Requests2XX"},
        {"value": float("nan")},
        {"value": float("inf")},
        {"kind": "rumour"},
        {"dimensions": {str(n): "x" for n in range(100)}},
    ],
)
def test_worker_metric_that_cannot_be_is_dropped(changes: dict[str, Any]) -> None:
    metrics = Metrics("host")
    before = metrics.text()
    metrics.worker_metrics([sample(**changes)])
    assert metrics.text() == before


def test_counter_never_goes_down() -> None:
    metrics = Metrics("host")
    metrics.worker_metrics([sample(kind="counter", value=3.0), sample(kind="counter", value=-1.0)])
    assert lines(metrics, "Work")[2].endswith(" 3.0")


def test_metric_keeps_its_first_kind_and_labels() -> None:
    metrics = Metrics("host")
    metrics.worker_metrics([sample(), sample(kind="counter"), sample(dimensions={"x": "y"})])
    assert len(lines(metrics, "Work")) == 3


def test_a_series_seen_before_goes_on_as_it_began() -> None:
    metrics = Metrics("host")
    again = sample("C", kind="counter", value=2.0)
    metrics.worker_metrics([again, again, again])
    metrics.worker_metrics([sample("C", kind="counter", value=float("inf")), sample("C")])
    assert lines(metrics, "C")[2:] == ['C{Level="Model",Hostname="host",} 6.0']


def test_other_spellings_of_a_series_take_no_memory() -> None:
    metrics = Metrics("host")
    for n in range(10):
        long_value = "x" * module.MAX_LABEL_CHARACTERS + str(n)
        metrics.worker_metrics([sample("C", kind="counter", dimensions={"a": long_value})])
    assert lines(metrics, "C")[2].endswith(" 10.0")
    assert len(metrics._known_series) == 0


def test_worker_cannot_fill_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_WORKER_FAMILIES", 10)
    monkeypatch.setattr(module, "MAX_WORKER_SERIES", 20)
    metrics = Metrics("host")
    for n in range(100):
        metrics.worker_metrics([sample(f"name{n}"), sample("one", dimensions={"id": str(n)})])
    names = {line.partition("{")[0] for line in lines(metrics) if "{" in line}
    assert len(names) == 10
    assert sum("{" in line for line in lines(metrics)) == 20
    assert len(metrics._known_series) <= 20
    assert MAX_WORKER_SERIES > 20


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.0, "0.0"), (9999999.0, "9999999.0"), (1e7, "1.0E7"), (12345678.5, "1.23456785E7")],
)
def test_numbers_are_spelled_as_java_does(value: float, text: str) -> None:
    metrics = Metrics("host")
    metrics.worker_metrics([sample(value=value)])
    assert lines(metrics, "Work")[2].endswith(f" {text}")
