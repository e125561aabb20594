"""The Prometheus text, and that a worker cannot harm us with its metrics."""

import re
from pathlib import Path
from typing import Any

import pytest

from torchkeep.frontend import worker_metrics as module
from torchkeep.frontend.metrics import SERVER_METRICS, MetricLogs, Metrics
from torchkeep.frontend.metrics_config import MetricsConfig, MetricSpec, parse_metrics_config
from torchkeep.frontend.worker_metrics import MAX_WORKER_SERIES, WorkerFamilies
from torchkeep.runtime.log_text import Bell
from torchkeep.runtime.messages import Metric
from torchkeep.runtime.metric_log import MetricLog


def lines(metrics: Metrics, *names: str) -> list[str]:
    return metrics.text(names).decode().splitlines()


def sample(name: str = "Work", **changes: Any) -> Metric:
    fields = {"value": 1.0, "unit": "ms", "kind": "gauge", "dimensions": {"Level": "Model"}}
    return Metric(name, **{**fields, **changes})


def known_series(metrics: Metrics) -> int:
    assert isinstance(metrics._worker_metrics, WorkerFamilies)
    return len(metrics._worker_metrics._known)


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
    metrics.worker_metrics([sample("C", kind="counter", value=float("inf"))])
    assert lines(metrics, "C")[2:] == ['C{Level="Model",Hostname="host",} 6.0']


def test_a_declared_metric_takes_samples_of_any_type_as_its_own() -> None:
    spec = MetricSpec("Work", "gauge", "ms", ("Level",))
    metrics = Metrics("vm", MetricsConfig({}, {"Work": spec}), "prometheus", False)
    metrics.worker_metrics([sample(value=7.0), sample(kind="counter", value=4.0)])
    assert lines(metrics, "Work")[2:] == ['Work{Level="Model",Hostname="vm",} 4.0']


def test_the_first_line_of_an_auto_detected_metric_is_told(
    caplog: pytest.LogCaptureFixture,
) -> None:
    metrics = Metrics("vm")
    with caplog.at_level("INFO"):
        metrics.worker_metrics([sample(value=2.0), sample()])
        metrics.worker_metrics([sample("Forged\nline")])
    assert caplog.messages == [
        "Registering auto detected backend metric: Work.ms:2.0|#Level:Model|#hostname:vm",
        r"Registering auto detected backend metric: Forged\nline.ms:1.0|#Level:Model|#hostname:vm",
    ]


def test_other_spellings_of_a_series_take_no_memory() -> None:
    metrics = Metrics("host")
    for n in range(10):
        long_value = "x" * module.MAX_LABEL_CHARACTERS + str(n)
        metrics.worker_metrics([sample("C", kind="counter", dimensions={"a": long_value})])
    assert lines(metrics, "C")[2].endswith(" 10.0")
    assert known_series(metrics) == 0


def test_worker_cannot_fill_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_WORKER_FAMILIES", 10)
    monkeypatch.setattr(module, "MAX_WORKER_SERIES", 20)
    metrics = Metrics("host")
    for n in range(100):
        metrics.worker_metrics([sample(f"name{n}"), sample("one", dimensions={"id": str(n)})])
    names = {line.partition("{")[0] for line in lines(metrics) if "{" in line}
    assert len(names) == 10
    assert sum("{" in line for line in lines(metrics)) == 20
    assert known_series(metrics) <= 20
    assert MAX_WORKER_SERIES > 20


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.0, "0.0"), (9999999.0, "9999999.0"), (1e7, "1.0E7"), (12345678.5, "1.23456785E7")],
)
def test_numbers_are_spelled_as_java_does(value: float, text: str) -> None:
    metrics = Metrics("host")
    metrics.worker_metrics([sample(value=value)])
    assert lines(metrics, "Work")[2].endswith(f" {text}")


SHIPPED = Path(__file__).parents[2] / "backend/ts-compat/ts/configs/metrics.yaml"
STAMP = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d,\d{3} - "


@pytest.fixture
def logs() -> MetricLogs:
    bell = Bell(lambda _: None)
    return MetricLogs(MetricLog(bell), MetricLog(bell, has_request_ids=True))


def without_times(text: str) -> list[str]:
    for line in text.splitlines():
        assert re.match(STAMP, line)
        assert re.search(r",timestamp:\d{10}$", line)
    return [re.sub(r"timestamp:\d+$", "", re.sub(STAMP, "", line)) for line in text.splitlines()]


def test_the_shipped_file_declares_all_that_the_server_measures() -> None:
    declared = parse_metrics_config(SHIPPED.read_text())
    ours = {name: declared.ts_metrics[name] for name in SERVER_METRICS}
    assert ours == SERVER_METRICS
    others = set(declared.ts_metrics) - set(SERVER_METRICS)
    assert others == {"GPUMemoryUtilization", "GPUMemoryUsed", "GPUUtilization"}


def test_log_mode_writes_lines_in_torchserves_format(logs: MetricLogs) -> None:
    specs = {"PredictionTime": MetricSpec("PredictionTime", "gauge", "ms", ("ModelName", "Level"))}
    metrics = Metrics("vm", MetricsConfig(SERVER_METRICS, specs), "log", False, logs)
    metrics.inference_request("m", "default")
    metrics.queue_latency("m", "default", 0.0001283)
    metrics.response(200)
    metrics.inference_latency("m", "1.0", 1.2978832)
    metrics.batch_overhead(0.0014)
    metrics.worker_loaded("W-9000-m_1.0", 2.3945)
    dimensions = {"ModelName": "m", "Level": "Model"}
    metrics.worker_metrics(
        [
            Metric("PredictionTime", 83.13, "Milliseconds", "gauge", dimensions, "a,b"),
            Metric("PredictionTime", 7, "Milliseconds", "gauge", dimensions),
        ]
    )
    assert without_times(logs.server.take()) == [
        "ts_inference_requests_total.Count:1.0|#model_name:m,model_version:default|#hostname:vm,",
        "ts_queue_latency_microseconds.Microseconds:128.3"
        "|#model_name:m,model_version:default|#hostname:vm,",
        "QueueTime.Milliseconds:0.0|#Level:Host|#hostname:vm,",
        "Requests2XX.Count:1.0|#Level:Host|#hostname:vm,",
        "ts_inference_latency_microseconds.Microseconds:1297883.2"
        "|#model_name:m,model_version:1.0|#hostname:vm,",
        "WorkerThreadTime.Milliseconds:1.0|#Level:Host|#hostname:vm,",
        "WorkerLoadTime.Milliseconds:2394.0|#WorkerName:W-9000-m_1.0,Level:Host|#hostname:vm,",
    ]
    assert without_times(logs.models.take()) == [
        "PredictionTime.ms:83.13|#ModelName:m,Level:Model|#hostname:vm,requestID:a,b,",
        "PredictionTime.ms:7.0|#ModelName:m,Level:Model|#hostname:vm,requestID:null,",
    ]


def test_counters_in_a_log_are_increments_not_sums(logs: MetricLogs) -> None:
    metrics = Metrics("vm", mode="log", logs=logs)
    metrics.response(404)
    metrics.response(404)
    assert logs.server.take().count("Requests4XX.Count:1.0|") == 2


def test_the_text_is_empty_in_log_mode(logs: MetricLogs) -> None:
    metrics = Metrics("vm", mode="log", logs=logs)
    metrics.response(200)
    metrics.observe("queue", "Count", ("model",), lambda: [(("m",), 1.0)])
    metrics.worker_metrics([sample()])
    assert metrics.text() == b""


def test_prometheus_mode_writes_no_lines(logs: MetricLogs) -> None:
    metrics = Metrics("vm", mode="prometheus", logs=logs)
    metrics.response(200)
    metrics.worker_metrics([sample()])
    assert logs.server.take() == logs.models.take() == ""


def test_legacy_mode_has_three_counters_as_text_and_the_rest_as_lines(logs: MetricLogs) -> None:
    metrics = Metrics("vm", mode="legacy", logs=logs)
    metrics.inference_request("m", "default")
    metrics.inference_latency("m", "default", 0.25)
    metrics.queue_latency("m", "default", 0.0025)
    metrics.response(200)
    metrics.worker_metrics([sample()])
    names = {line.partition("{")[0] for line in lines(metrics) if not line.startswith("#")}
    assert names == {
        "ts_inference_requests_total",
        "ts_inference_latency_microseconds",
        "ts_queue_latency_microseconds",
    }
    assert [line.partition(".")[0] for line in without_times(logs.server.take())] == [
        "QueueTime",
        "Requests2XX",
    ]
    assert "Work.ms:1.0" in logs.models.take()


def test_a_log_that_nobody_keeps_costs_nothing() -> None:
    metrics = Metrics("vm", mode="log")
    metrics.response(200)
    metrics.worker_metrics([sample()])
    metrics.system("CPUUtilization", 3.0)
    assert metrics.text() == b""


def test_a_metric_that_the_yaml_lacks_is_not_recorded(logs: MetricLogs) -> None:
    declared = MetricsConfig({"QueueTime": SERVER_METRICS["QueueTime"]})
    for mode in ("prometheus", "log"):
        metrics = Metrics("vm", declared, mode, False, logs)  # type: ignore[arg-type]
        metrics.response(200)
        metrics.queue_latency("m", "default", 0.5)
        metrics.worker_metrics([sample()])
        text = metrics.text().decode() + logs.server.take() + logs.models.take()
        assert "QueueTime" in text
        assert "Requests" not in text
        assert "Work" not in text


def test_unit_type_and_labels_are_those_of_the_yaml() -> None:
    spec = MetricSpec("QueueTime", "histogram", "ms", ("Stufe", "Rechner"))
    metrics = Metrics("vm", MetricsConfig({"QueueTime": spec}))
    metrics.queue_latency("m", "default", 0.5)
    text = metrics.text().decode()
    assert "# TYPE QueueTime histogram\n" in text
    assert 'QueueTime_sum{Stufe="Host",Rechner="vm",} 500.0\n' in text


def test_wrong_labels_of_a_server_metric_are_told(caplog: pytest.LogCaptureFixture) -> None:
    spec = MetricSpec("QueueTime", "gauge", "ms", ("Level",))
    metrics = Metrics("vm", MetricsConfig({"QueueTime": spec}))
    metrics.queue_latency("m", "default", 0.5)
    assert "QueueTime{" not in metrics.text().decode()
    assert "QueueTime has the dimensions Level, expected as many as Level, Hostname" in caplog.text


def test_declared_metrics_of_models_have_help_from_the_start() -> None:
    spec = MetricSpec("HandlerTime", "gauge", "ms", ("ModelName", "Level"))
    metrics = Metrics("vm", MetricsConfig({}, {"HandlerTime": spec}), "prometheus", False)
    assert "# TYPE HandlerTime gauge\n" in metrics.text().decode()


def test_dimensions_of_a_declared_metric_are_told_by_their_places() -> None:
    spec = MetricSpec("Work", "gauge", "ms", ("A",))
    metrics = Metrics("vm", MetricsConfig({}, {"Work": spec}), "prometheus", False)
    metrics.worker_metrics([sample(dimensions={"B": "x"})])
    assert 'Work{A="x",Hostname="vm",} 1.0' in lines(metrics)


@pytest.mark.parametrize("mode", ["prometheus", "log"])
def test_a_wrong_number_of_dimensions_is_told_once(
    mode: Any, logs: MetricLogs, caplog: pytest.LogCaptureFixture
) -> None:
    spec = MetricSpec("Work", "gauge", "ms", ("A", "B"))
    metrics = Metrics("vm", MetricsConfig({}, {"Work": spec}), mode, False, logs)
    metrics.worker_metrics([sample(), sample()])
    assert caplog.text.count("Failed to update backend metric Work") == 1
    assert "expected the dimensions A, B" in caplog.text
    assert logs.models.take() == ""


def test_unknown_metrics_of_models_need_auto_detection(logs: MetricLogs) -> None:
    for detects, count in ((False, 0), (True, 1)):
        metrics = Metrics("vm", mode="log", detects_model_metrics=detects, logs=logs)
        metrics.worker_metrics([sample(value=float("inf")), sample(), sample(kind="rumour")])
        # TorchServe: the unit is the worker's own, as no file knows a shorter one
        assert logs.models.take().count("Work.ms:1.0|#Level:Model|#hostname:vm,") == count + (
            1 if detects else 0
        )


def test_a_handlers_labels_cannot_forge_a_line(logs: MetricLogs) -> None:
    metrics = Metrics("vm", mode="log", logs=logs)
    metrics.worker_metrics([sample("a\nb", dimensions={"x": "y\nz\x1b"}, request_id="i\nd")])
    (line,) = logs.models.take().splitlines()
    assert r"a\nb.ms:1.0|#x:y\nz\x1b|#hostname:vm,requestID:i\nd,timestamp:" in line


def test_known_labels_in_a_log_are_forgotten_before_they_fill_the_memory(
    logs: MetricLogs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_WORKER_SERIES", 5)
    metrics = Metrics("vm", mode="log", logs=logs)
    metrics.worker_metrics([sample(dimensions={"id": str(n)}) for n in range(12)])
    assert len(metrics._worker_metrics._known) <= 5  # type: ignore[union-attr]
    assert logs.models.take().count("\n") == 12


def test_system_metrics_have_their_labels() -> None:
    metrics = Metrics("vm")
    metrics.system("DiskUsage", 39.5)
    assert lines(metrics, "DiskUsage") == [
        "# HELP DiskUsage Torchserve prometheus gauge metric with unit: Gigabytes",
        "# TYPE DiskUsage gauge",
        'DiskUsage{Level="Host",Hostname="vm",} 39.5',
    ]
