"""The metrics port, its modes, metrics.yaml, custom metrics, lines of logs."""

from conformance.case import ECHO, Case, Scenario, infer, manage, register

# Ours has a few more: shown in a case of its own.
TORCHSERVES = rb"^(?!.*torchkeep_)"
SCRAPE = "/metrics"
METERED = "/predictions/metered"


def scrape(name: str, path: str = SCRAPE, method: str = "GET", **options: object) -> Case:
    options = {"lines": TORCHSERVES, **options}
    return Case(name, "metrics", method, path, **options)  # type: ignore[arg-type]


def log(name: str, file: str, lines: bytes, line_count: int, deliberate: str | None = None) -> Case:
    """So many lines of a log file, without what measures time."""
    return Case(name, "log", "", file, lines=lines, line_count=line_count, deliberate=deliberate)


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
    - {name: WorkerThreadTime, unit: Milliseconds, dimensions: [*level, "Hostname"]}
    - {name: WorkerLoadTime, unit: Milliseconds, dimensions: ["WorkerName", *level, "Hostname"]}
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
OWN_YAML = {"metrics_config": "$$SCENARIO_HOME$$/metrics.yaml"}
QUIET = {"disable_system_metrics": "true"}

PROMETHEUS = Scenario(
    "metrics in prometheus mode",
    archives=("echo", "failures"),
    config={"metrics_mode": "prometheus", **QUIET},
    cases=[
        scrape("before any request", timeout_s=20),
        scrape("counts the scrape before"),
        register("echo"),
        register("failures"),
        infer("a prediction", ECHO, b"x", headers=[("reply-text", "x")]),
        infer("a prediction of a version", f"{ECHO}/1.0", b"x", headers=[("reply-text", "x")]),
        infer("an explanation", "/explanations/echo", b"x", headers=[("reply-text", "x")]),
        infer("a status of the handler", ECHO, b"x",
              headers=[("reply-status", "404"), ("reply-text", "x")]),
        infer("a redirection", ECHO, b"x", headers=[("reply-status", "302"), ("reply-text", "x")]),
        infer("a failure", "/predictions/failures/1.0/value-error", b"x"),
        infer("an unknown model", "/predictions/unknown", b"x"),
        infer("an unknown version", f"{ECHO}/9.9", b"x"),
        manage("a description", "GET", "/models/echo"),
        manage("a customized description", "GET", "/models/echo?customized=true"),
        manage("an unknown route", "GET", "/nothing"),
        scrape("after requests", until=rb"PredictionTime\{"),
        scrape("more than TorchServe's", lines=rb"torchkeep_", deliberate="more-metrics",
               our_status=200),
        *(scrape(f"names {query}", f"{SCRAPE}?{query}")
          for query in (
              "name[]=Requests2XX", "name[]=Requests2XX&name[]=ts_inference_requests_total",
              "name[]=unknown", "name[]=", "name=Requests2XX", "name%5B%5D=Requests4XX",
              "name[]=requests2xx", "name[]=Requests", "other=1",
              "name[]=unknown&name[]=Requests5XX")),
        *(scrape(f"{method} {path}", path, method)
          for method, path in (
              ("POST", SCRAPE), ("PUT", SCRAPE), ("DELETE", SCRAPE),
              ("HEAD", f"{SCRAPE}?name[]=Requests5XX"),
              ("OPTIONS", SCRAPE), ("GET", "/metrics/"), ("GET", "/metrics/more"),
              ("GET", "//metrics"), ("GET", "/Metrics"), ("GET", "/"), ("POST", "/"),
              ("GET", "/ping"), ("GET", "/models"), ("GET", "/nothing"))),
        scrape("OPTIONS /", "/", "OPTIONS", lines=None),
        scrape("the description", "/api-description", lines=None),
        Case("metrics on the inference port", "inference", "GET", SCRAPE),
        manage("metrics on the management port", "GET", SCRAPE),
        scrape("after all"),
        manage("unregister", "DELETE", "/models/failures"),
        scrape("after a model went", lines=rb"^(?!.*torchkeep_).*failures"),
    ],
)  # fmt: skip

CUSTOM_METRICS = Scenario(
    "custom metrics in prometheus mode",
    archives=("metered",),
    config={"metrics_mode": "prometheus", **QUIET, **OWN_YAML},
    files={"metrics.yaml": METRICS_YAML},
    cases=[
        scrape("declared"),
        register("metered"),
        infer("metered", METERED, b"x"),
        scrape("measured", until=rb"PredictionTime\{"),
        infer("metered again", METERED, b"x"),
        scrape("measured again", until=rb'DeclaredCount\{[^}]*"\} 2.0|DeclaredCount\{[^}]*,\} 2.0'),
        scrape("a histogram", f"{SCRAPE}?name[]=DeclaredHistogram_bucket"),
        scrape("a sum", f"{SCRAPE}?name[]=DeclaredHistogram_sum"),
        scrape("a histogram by its own name", f"{SCRAPE}?name[]=DeclaredHistogram"),
    ],
)  # fmt: skip

AUTO_DETECTED = Scenario(
    "auto detected metrics",
    archives=("metered",),
    config={
        "metrics_mode": "prometheus", "model_metrics_auto_detect": "true", **QUIET, **OWN_YAML,
    },
    files={"metrics.yaml": METRICS_YAML},
    cases=[
        register("metered"),
        infer("metered", METERED, b"x"),
        scrape("detected", until=rb"PredictionTime\{"),
    ],
)  # fmt: skip

LEGACY = Scenario(
    "metrics in legacy mode",
    archives=("echo",),
    config={"metrics_mode": "Legacy", **QUIET},
    cases=[
        scrape("declared"),
        register("echo"),
        infer("a prediction", ECHO, b"x", headers=[("reply-text", "x")]),
        infer("a prediction of a version", f"{ECHO}/1.0", b"x", headers=[("reply-text", "x")]),
        scrape("three counters", until=rb"ts_inference_latency_microseconds\{"),
        log("the others are lines", "ts_metrics.log", rb"Requests2XX|QueueTime", 7),
    ],
)

LOG_LINES = Scenario(
    "log lines",
    archives=("failures", "metered"),
    config={**QUIET, **OWN_YAML, "metrics_mode": "unknown"},
    files={"metrics.yaml": METRICS_YAML},
    cases=[
        scrape("nothing to scrape"),
        register("metered"),
        infer("metered", METERED, b"x"),
        infer("metered by its version", f"{METERED}/1.0", b"x"),
        register("failures"),
        infer("a failure", "/predictions/failures/1.0/value-error", b"x"),
        infer("not found", "/nothing", method="GET"),
        infer("escaped", "/no%20thing%2F", method="PUT"),
        infer("head", "/ping", method="HEAD"),
        manage("list", "GET", "/models"),
        log("access", "access_log.log", rb'"(GET|HEAD|PUT|POST /pred)', 8),
        log(
            "access with a query",
            "access_log.log",
            rb'"POST /models',
            2,
            deliberate="no-queries-in-logs",
        ),
        log("metrics of the server", "ts_metrics.log", rb"Requests|Queue|Worker|ts_inf", 23),
        log("metrics of the model", "model_metrics.log", rb"", 14),
        log("words of the model", "model_log.log", rb"hello", 4),
    ],
)

NO_METRICS_PORT = Scenario(
    "no metrics port",
    archives=(),
    config={"enable_metrics_api": "false", "metrics_mode": "prometheus"},
    cases=[
        scrape("nobody is there"),
        Case("ping beside it", "inference", "GET", "/ping"),
        Case("metrics on the inference port", "inference", "GET", SCRAPE),
    ],
)

SCENARIOS = [
    PROMETHEUS, CUSTOM_METRICS, AUTO_DETECTED, LEGACY, LOG_LINES, NO_METRICS_PORT,
]  # fmt: skip
