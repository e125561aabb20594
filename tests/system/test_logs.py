"""The log files and metrics of a whole server, beside what TorchServe 0.12 wrote.

The expected lines of metrics were written by the real TorchServe for the same handler and the
same metrics.yaml, but for times, ids and measured values.
"""

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import pytest

HANDLERS = Path(__file__).parent.parent / "handlers"
METRICS_YAML = """
dimensions:
  - &model_name "ModelName"
  - &level "Level"
ts_metrics:
  counter:
    - {name: Requests2XX, unit: Count, dimensions: [*level, "Hostname"]}
    - {name: Requests4XX, unit: Count, dimensions: [*level, "Hostname"]}
    - name: ts_inference_requests_total
      unit: Count
      dimensions: ["model_name", "model_version", "hostname"]
    - name: ts_inference_latency_microseconds
      unit: Microseconds
      dimensions: ["model_name", "model_version", "hostname"]
  gauge:
    - {name: QueueTime, unit: Milliseconds, dimensions: [*level, "Hostname"]}
    - {name: WorkerLoadTime, unit: Milliseconds, dimensions: ["WorkerName", *level, "Hostname"]}
    - {name: DiskUsage, unit: Gigabytes, dimensions: [*level, "Hostname"]}
model_metrics:
  counter:
    - {name: DeclaredCount, unit: Count, dimensions: [*model_name, *level]}
  gauge:
    - {name: DeclaredTime, unit: ms, dimensions: [*model_name, *level]}
    - {name: PredictionTime, unit: ms, dimensions: [*model_name, *level]}
    - {name: Big, unit: percent, dimensions: [*model_name, *level]}
    - {name: Tiny, unit: MB, dimensions: [*model_name, *level]}
  histogram:
    - {name: DeclaredHistogram, unit: s, dimensions: [*model_name, *level]}
"""
SECRET = "secret-of-a-client"
HOST = os.uname().nodename
STAMP = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d,\d{3}"
MODEL = f"|#ModelName:metered,Level:Model|#hostname:{HOST},requestID:"

Start = Callable[..., Any]


@pytest.fixture
def metered(server_factory: Any, tmp_path: Path) -> Start:
    """Starts a server with the handler of this page, and sends it one request with a secret."""

    def start(metrics_yaml: str = METRICS_YAML, **config: str) -> Any:
        (tmp_path / "metrics.yaml").write_text(metrics_yaml)
        pack(tmp_path)
        settings = {"metrics_config": str(tmp_path / "metrics.yaml"), **config}
        server = server_factory(models=["metered.mar"], store=tmp_path, config=settings)
        server.wait_until_ready("metered")
        status, _, body = server.request(
            "POST", f"/predictions/metered?token={SECRET}", SECRET, {"X-Own": SECRET}
        )
        assert (status, body) == (200, SECRET.encode())
        assert server.request("GET", "/nothing")[0] == 404
        return server

    return start


def pack(store: Path) -> None:
    manifest = (
        '{"runtime": "python", "model": {"modelName": "metered", "modelVersion": "1.0", '
        '"handler": "metered.py", "configFile": "config.yaml"}}'
    )
    with ZipFile(store / "metered.mar", "w") as archive:
        archive.write(HANDLERS / "metered.py", "metered.py")
        archive.writestr("config.yaml", "minWorkers: 1\nmaxWorkers: 1\n")
        archive.writestr("MAR-INF/MANIFEST.json", manifest)


def lines(server: Any, name: str) -> list[str]:
    path = server.workdir / "logs" / f"{name}.log"
    return path.read_text().splitlines() if path.exists() else []


def metrics(server: Any, name: str) -> list[str]:
    """Lines of a log of metrics without what changes from run to run."""
    found = []
    for line in lines(server, name):
        assert re.match(f"{STAMP} - ", line)
        line = re.sub(f"^{STAMP} - ", "", line)
        line = re.sub(r"requestID:[0-9a-f]{8}-[0-9a-f-]{27}", "requestID:ID", line)
        line = re.sub(r"(Time|Usage|microseconds)\.(\w+):[0-9.]+(E\d+)?\|", r"\1.\2:V|", line)
        found.append(re.sub(r"timestamp:\d{10}$", "timestamp:T", line))
    return found


def test_log_mode_writes_what_torchserve_writes(metered: Start, poll: Any) -> None:
    server = metered()
    for log, last in (
        ("ts_metrics", "Requests4XX"),
        ("ts_metrics", "DiskUsage"),
        ("model_metrics", "PredictionTime"),
    ):
        poll(lambda log=log, last=last: last in "".join(lines(server, log)), f"{last} in {log}")
    counts = f"|#Level:Host|#hostname:{HOST},timestamp:T"
    labels = f"|#model_name:metered,model_version:default|#hostname:{HOST},timestamp:T"
    of_server = metrics(server, "ts_metrics")
    assert of_server.count(f"ts_inference_requests_total.Count:1.0{labels}") == 1
    assert of_server.count(f"ts_inference_latency_microseconds.Microseconds:V{labels}") == 1
    assert of_server.count(f"QueueTime.Milliseconds:V{counts}") == 1
    assert of_server.count(f"Requests4XX.Count:1.0{counts}") == 1
    assert of_server.count(f"DiskUsage.Gigabytes:V{counts}") == 1
    worker = "WorkerLoadTime.Milliseconds:V|#WorkerName:W-9000-metered_1.0,Level:Host"
    assert sum(line.startswith(worker) for line in of_server) == 1
    names = {line.partition(".")[0] for line in of_server}
    assert "WorkerThreadTime" not in names  # the file lacks it
    time_and_id = f"{MODEL}ID,timestamp:T"
    assert metrics(server, "model_metrics") == [
        f"DeclaredTime.ms:V{time_and_id}",
        f"DeclaredCount.Count:1.0{time_and_id}",
        f"DeclaredHistogram.s:0.3{time_and_id}",
        f"Big.percent:1.234567895E8{time_and_id}",
        f"Tiny.MB:1.0E-4{time_and_id}",
        f"DeclaredTime.ms:V{MODEL}null,timestamp:T",
        f"PredictionTime.ms:V{time_and_id}",
    ]
    status, _, text = server.request("GET", "/metrics", port="metrics")
    assert (status, text) == (200, b"")


def test_files_and_stdout_of_a_server(metered: Start, poll: Any) -> None:
    server = metered()
    poll(lambda: "404" in "".join(lines(server, "access_log")[-1:]), "access lines")
    poll(lambda: any("hello stderr" in line for line in lines(server, "model_log")), "output")
    access = lines(server, "access_log")[-2:]
    pattern = rf'{STAMP} - /127\.0\.0\.1:\d+ "POST /predictions/metered HTTP/1\.1" 200 \d+'
    assert re.fullmatch(pattern, access[0])
    model_log = lines(server, "model_log")
    for level, pipe, said in (
        ("INFO", "stdout", "hello stdout"),
        ("WARN", "stderr", "hello stderr"),
        ("INFO", "stdout", "hello logger"),
    ):
        pattern = rf"{STAMP} \[{level} \] W-9000-metered_1\.0-{pipe} MODEL_LOG - {said}"
        assert any(re.fullmatch(pattern, line) for line in model_log)
    assert not any("hello debugger" in line for line in model_log)
    ts_log = "\n".join(lines(server, "ts_log"))
    for text in (
        " [INFO ] MainThread torchkeep.start - Model server started.",
        " [INFO ] W-9000-metered_1.0-stdout MODEL_LOG - hello stdout",
        " [INFO ] MainThread ACCESS_LOG - /127.0.0.1:",
        " - Model metered loaded.",
        " [DEBUG] W-9000-metered_1.0 torchkeep.worker - W-9000-metered_1.0 State change"
        " WORKER_STARTED -> WORKER_MODEL_LOADED",
        " [INFO ] W-9000-metered_1.0-stdout MODEL_LOG - Torch worker started.",
        f" MODEL_LOG - [PID]{server.workers('metered')[0]['pid']}",
        " [INFO ] W-9000-metered_1.0-stdout MODEL_LOG - Connection accepted: ",
        " torchkeep.runtime - \nTorchserve version: 0.12.0\nTS Home: ",
    ):
        assert text in ts_log
    stdout = server.log_text()
    assert "\nModel server started.\n" in stdout
    assert "MODEL_LOG - hello stderr" in stdout
    assert "hello stdout" not in stdout
    assert "hello logger" not in stdout
    assert "PredictionTime" not in stdout
    for told_in_the_file_only in ("State change", "Torch worker started", "metered loaded"):
        assert told_in_the_file_only not in stdout


def test_no_log_holds_a_payload_a_query_or_a_header(metered: Start, poll: Any) -> None:
    server = metered(metrics_mode="legacy", model_metrics_auto_detect="true")
    poll(lambda: "404" in "".join(lines(server, "access_log")[-1:]), "access lines")
    server.stop()
    files = list((server.workdir / "logs").glob("*.log"))
    assert len(files) == 5
    for path in (*files, server.log_file):
        assert SECRET not in path.read_text()


def test_prometheus_mode_of_a_server(metered: Start, poll: Any) -> None:
    server = metered(metrics_mode="Prometheus", model_metrics_auto_detect="true")

    def text() -> str:
        return str(server.request("GET", "/metrics", port="metrics")[2].decode())

    poll(lambda: "DiskUsage{" in text(), "the system's metrics")
    labels = f'{{ModelName="metered",Level="Model",Hostname="{HOST}",}}'
    found = text()
    for line in (
        "# HELP DeclaredCount Torchserve prometheus counter metric with unit: Count",
        "# TYPE DeclaredCount counter",
        f"DeclaredCount{labels} 1.0",
        f"DeclaredTime{labels} 7.0",
        f"DeclaredHistogram_sum{labels} 0.3",
        "# HELP Unknown Torchserve prometheus counter metric with unit: Count",
        f"Unknown{labels} 2.0",
        f'SomeError{{Level="Error",Hostname="{HOST}",}} 1.0',
        f'Requests4XX{{Level="Host",Hostname="{HOST}",}} 1.0',
    ):
        assert f"{line}\n" in found
    assert lines(server, "ts_metrics") == lines(server, "model_metrics") == []


def test_system_metrics_can_be_switched_off(metered: Start) -> None:
    server = metered(disable_system_metrics="true", metrics_mode="prometheus")
    _, _, text = server.request("GET", "/metrics", port="metrics")
    assert b"# TYPE DiskUsage gauge\n" in text
    assert b"DiskUsage{" not in text


def test_a_script_of_torchserves_is_told_to_be_in_vain(metered: Start) -> None:
    server = metered(system_metrics_cmd="ts/metrics/metric_collector.py --gpu 0")
    assert "--gpu 0 is not run" in server.log_text()
    assert "the server reads processors, memory and disk itself" in server.log_text()


SCRIPT = """
import sys
pids = [int(pid) for pid in sys.stdin.readline().split(",") if pid.strip()]
print(f"DiskUsage.Gigabytes:{len(pids)}.{sys.argv[1]}|#Level:Host|#hostname:h,timestamp:1")
print("Unknown.Count:1|#Level:Host|#hostname:h,timestamp:1")
print("no metric")
print()
print("MemoryUsed.Megabytes:9|#Level:Host|#hostname:h,timestamp:1")
"""


def test_a_script_of_the_users_reads_the_machine(metered: Start, tmp_path: Path, poll: Any) -> None:
    (tmp_path / "mine.py").write_text(SCRIPT)
    server = metered(
        system_metrics_cmd=f"{tmp_path}/mine.py 5",
        metrics_mode="prometheus",
        metric_time_interval="1",
    )

    def text() -> str:
        return str(server.request("GET", "/metrics", port="metrics")[2], "utf-8")

    workers = len(server.workers("metered"))
    poll(lambda: re.search(rf"^DiskUsage\{{.*\}} {workers}\.5$", text(), re.M), "its figure")
    assert "MemoryUsed{" not in text()  # behind the empty line


def test_a_script_that_fails_is_told(metered: Start, tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text("raise SystemExit('no such sensor')")
    server = metered(system_metrics_cmd=f"{tmp_path}/mine.py")
    assert "mine.py failed: no such sensor" in server.wait_for_lines("no such sensor")


def test_a_bad_metrics_yaml_is_told_and_the_server_starts(server_factory: Any) -> None:
    config = {"metrics_config": "/nowhere/metrics.yaml", "metrics_mode": "prometheus"}
    server = server_factory(config=config)
    server.wait_for_lines("Failed to load metrics configuration: /nowhere/metrics.yaml: ")
    assert b"Requests2XX" not in server.request("GET", "/metrics", port="metrics")[2]


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("ts_metrics: {}\n", "MetricsCacheKeyError: \"'model_metrics' key not found in yaml file"),
        ("model_metrics: {meter: [{name: A}]}\n", "MetricsCacheTypeError"),
    ],
)
def test_a_worker_whose_metrics_yaml_lacks_model_metrics_does_not_start(
    server_factory: Any,
    tmp_path: Path,
    text: str,
    complaint: str,
) -> None:
    pack(tmp_path)
    (tmp_path / "metrics.yaml").write_text(text)
    config = {"metrics_config": str(tmp_path / "metrics.yaml")}
    server = server_factory(models=["metered.mar"], store=tmp_path, config=config)
    server.wait_for_lines(complaint)


def test_where_logs_cannot_be_written_the_server_starts_and_says_so(
    server_factory: Any, tmp_path: Path
) -> None:
    (tmp_path / "taken").write_text("no directory")
    server = server_factory(env={"LOG_LOCATION": str(tmp_path / "taken")})
    assert f"Warning: no log files: {tmp_path / 'taken'}: " in server.log_text()
    server.request("GET", "/ping")
    server.wait_for_lines("ACCESS_LOG - /127.0.0.1:")


def test_a_python_logging_configuration_of_a_server(
    server_factory: Any, tmp_path: Path, poll: Any
) -> None:
    (tmp_path / "logging.yaml").write_text(
        "version: 1\n"
        'formatters: {json: {format: \'{"logger": "%(name)s", "text": "%(message)s"}\'}}\n'
        "handlers:\n"
        "  console: {class: logging.StreamHandler, formatter: json, stream: ext://sys.stdout}\n"
        f"  access: {{class: logging.FileHandler, filename: {tmp_path / 'access.json'},"
        " formatter: json}\n"
        "loggers: {ACCESS_LOG: {level: INFO, handlers: [access], propagate: false}}\n"
        "root: {level: WARNING, handlers: [console]}\n"
    )
    server = server_factory(args=["--log-config", str(tmp_path / "logging.yaml")])
    assert server.request("GET", "/nothing")[0] == 404
    access = tmp_path / "access.json"
    poll(lambda: access.read_text().endswith("\n"), "the access line")
    assert access.read_text().startswith('{"logger": "ACCESS_LOG", "text": "/127.0.0.1:')
    assert not (server.workdir / "logs").exists()
    assert "ACCESS_LOG" not in server.log_text()


def test_a_log4j2_file_is_said_to_be_javas(server_factory: Any, tmp_path: Path) -> None:
    (tmp_path / "log4j2.xml").write_text("<Configuration/>")
    server = server_factory(args=["--log-config", str(tmp_path / "log4j2.xml")])
    assert "log4j2.xml is a log4j2 configuration, which is made for Java" in server.log_text()
    assert (server.workdir / "logs" / "ts_log.log").exists()
