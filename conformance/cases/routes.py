"""Every path of both ports, descriptions, CORS."""

from conformance.case import (
    ECHO,
    FORM,
    JSON,
    MULTIPART,
    Case,
    Scenario,
    form,
    infer,
    manage,
    register,
)

ROUTES = Scenario(
    "routes",
    archives=("echo",),
    models=("echo.mar",),
    config={"default_workers_per_model": "1"},
    cases=[
        infer("ping", "/ping", method="GET"),
        infer("ping by POST", "/ping", b"x"),
        infer("ping with more path", "/ping/a", method="GET"),
        infer("ping with a slash", "/ping/", method="GET"),
        infer("two slashes", "//ping", method="GET"),
        infer("ping in capitals", "/Ping", method="GET"),
        infer("root", "/", method="GET"),
        infer("unknown path", "/unknown", method="GET"),
        infer("no model name", "/predictions", b"x"),
        infer("no model name to explain", "/explanations", b"x"),
        infer("unknown model", "/predictions/unknown", b"x"),
        infer("unknown version", "/predictions/echo/9.9", b"x"),
        infer("unknown model and version", "/predictions/unknown/1.0", b"x"),
        infer("unknown model to explain", "/explanations/unknown", b"x"),
        infer("management path", "/models", method="GET"),
        manage("describe a model loaded at start", "GET", "/models/echo"),
        manage("management root", "GET", "/"),
        manage("management unknown path", "GET", "/unknown"),
        manage("inference path", "POST", "/predictions/echo"),
        manage("ping on management", "GET", "/ping"),
        manage("models by PATCH", "PATCH", "/models"),
        manage("models by PUT", "PUT", "/models"),
        manage("model by POST", "POST", "/models/echo"),
        manage("third segment", "GET", "/models/echo/1.0/more"),
    ],
)

OTHER_ROUTES = Scenario(
    "other routes",
    archives=("echo",),
    models=("echo.mar",),
    config={"default_workers_per_model": "1"},
    cases=[
        infer("kserve v1 predict", "/v1/models/echo:predict", b'{"instances": [1]}', JSON),
        infer("kserve v1 explain", "/v1/models/echo:explain", b'{"instances": [1]}', JSON),
        infer("kserve v1 unknown model", "/v1/models/unknown:predict", b"{}", JSON),
        infer("kserve v2 infer", "/v2/models/echo/infer", b"{}", JSON),
        infer("kserve v2 explain", "/v2/models/echo/explain", b"{}", JSON),
        infer("invocations of the only model", "/invocations", b"x"),
        infer("invocations", "/invocations?model_name=echo&a=1", b"x"),
        infer("invocations of an unknown model", "/invocations?model_name=unknown", b"x"),
        infer("invoke", "/models/echo/invoke?a=1", b"x"),
        infer("invoke misspelled", "/models/echo/invok", b"x"),
        infer("legacy predict", "/echo/predict?a=1", b"x"),
        infer("legacy predict of a version", "/echo/1.0/predict", b"x"),
        manage("kserve readiness", "GET", "/v1/models/echo"),
        manage("kserve readiness unknown", "GET", "/v1/models/unknown"),
        manage("kserve readiness by POST", "POST", "/v1/models/echo"),
        manage("register without workers", "POST", "/models?url=echo.mar&model_name=idle"),
        manage("kserve readiness without workers", "GET", "/v1/models/idle"),
    ],
)

TWO_ARCHIVES = ("echo", "replies")
PATHS = [
    "/v1/models", "/v1/models/echo", "/v1/models/echo:other",
    "/v1/models/echo:predict/more", "/v1/models/:predict", "/v1/models/e:cho:predict",
    "/v1/models/echo%3Apredict", "/v1/predict", "/v1/models/predict", "/v2/models/predict",
    "/v1/models/echo:predictmore", "/v1/models/echo:other:predict",
    "/v1/models/echo:predict:explain", "/api-description/predict", "/wfpredict/predict",
    "/workflows/predict", "/v1/models/echo:explain:predict", "/v1/echo:predict", "/v1",
    "/v1/models/echo/predict", "/v1/models/unknown:explain", "/v2", "/v2/models",
    "/v2/models/echo", "/v2/models/echo/infer/more", "/v2/models/echo/ready",
    "/v2/models/unknown/infer", "/v2/models/echo/versions/1.0", "/v2/models/echo/other",
    "/v2/models/echo/versions/1.0/infer", "/v2/health/live", "/v2/health/ready",
    "/v2/echo/infer", "/models/echo", "/models/echo/1.0", "/models/echo/invoke/more",
    "/models/unknown/invoke", "/models/predict", "/models/echo/predict", "/models/invoke",
    "/echo", "/echo/1.0", "/echo/predict/more", "/echo/1.0/predict/more",
    "/echo/9.9/predict", "/unknown/predict", "/unknown/1.0/predict", "/Echo/predict",
    "/echo/Predict", "/predictions/predict", "/predictions/1.0/predict",
    "/explanations/predict", "/ping/predict", "/invocations/predict", "/invocations/more",
    "/invocations/1.0/predict", "/workflows",
]  # fmt: skip

PORT_PATHS = Scenario(
    "paths of the inference port",
    archives=TWO_ARCHIVES,
    models=("echo.mar", "replies.mar"),
    config={"default_workers_per_model": "1"},
    cases=[
        *(infer(f"POST {path}", path, b"x") for path in PATHS),
        *(infer(f"GET {path}", path, method="GET")
          for path in ("/v1/models/echo:predict", "/v2/models/echo/infer", "/echo/predict",
                       "/models/echo/invoke", "/invocations?model_name=echo")),
        infer("invocations of nobody", "/invocations", b"x"),
        infer("invocations by field", "/invocations", b"model_name=echo&a=1", FORM),
        infer("invocations by part", "/invocations",
              form(('Content-Disposition: form-data; name="model_name"', b"echo")), MULTIPART),
        infer("invocations by file part", "/invocations",
              form(('Content-Disposition: form-data; name="model_name"; filename="f"', b"echo")),
              MULTIPART),
        infer("invocations by query and field", "/invocations?model_name=echo",
              b"model_name=replies", FORM),
        infer("invocations of an empty name", "/invocations?model_name=", b"x"),
        infer("invocations of an empty field", "/invocations", b"model_name=", FORM),
        infer("invocations by json", "/invocations", b'{"model_name": "echo"}', JSON),
        infer("query twice", "/models/echo/invoke?a=1&a=2&b&c=%C3%A4+%2B;d=1", b"x"),
        infer("query with a bad escape", "/echo/predict?a=%ZZ", b"x"),
        infer("query of bytes", "/echo/predict?a=%FF", b"x"),
        infer("query with a fragment", "/echo/predict?a=1#b", b"x"),
        infer("query without names", "/echo/predict?=1&&a", b"x"),
        infer("query and field", "/echo/predict?a=query", b"a=field", FORM),
        infer("query and body", "/echo/predict?body=query", b"body"),
        infer("query and json body", "/echo/predict?body=query", b"[1]", JSON),
        infer("query without a body", "/echo/predict?a=1", method="GET"),
        infer("query of kserve", "/v1/models/echo:predict?a=1", b"x"),
        infer("headers of invocations", "/invocations?model_name=echo", b"x",
              headers=[("explain", "True"), ("url_path", "mine")]),
        infer("version that is not there", "/echo/9.9/predict", b"x",
              headers=[("reply-text", "never")]),
        infer("head of kserve", "/v2/models/echo/infer", method="HEAD"),
        *(manage(f"{method} {path} on management", method, path)
          for method, path in (
              ("GET", "/v1/models"), ("GET", "/v1/models/echo/more"), ("GET", "/v1"),
              ("GET", "/v1/models/echo:predict"), ("GET", "/v2/models/echo"),
              ("HEAD", "/v1/models/echo"), ("OPTIONS", "/v1/models/echo"),
              ("PUT", "/v1/models/unknown"), ("POST", "/invocations"), ("POST", "/echo/predict"))),
        manage("scale to zero", "PUT", "/models/replies?min_worker=0&synchronous=true"),
        manage("kserve readiness without workers", "GET", "/v1/models/replies"),
        infer("kserve without workers", "/v1/models/replies:predict", b"x"),
        infer("legacy version without workers", "/replies/1.0/predict", b"x"),
        manage("unregister one of two", "DELETE", "/models/replies"),
        infer("invocations of the only one left", "/invocations", b"x"),
    ],
)  # fmt: skip

ONE_MODEL = Scenario(
    "the only model",
    archives=TWO_ARCHIVES,
    models=("echo.mar",),
    config={"default_workers_per_model": "1"},
    cases=[
        register("replies"),
        infer("invocations after a second came", "/invocations", b"x"),
        infer("invocations of the second by field", "/invocations", b"model_name=replies", FORM),
        infer("invocations of the second", "/invocations?model_name=replies", b"x"),
        manage("unregister it", "DELETE", "/models/echo"),
        infer("invocations after it went", "/invocations", b"x"),
    ],
)

OPEN_INFERENCE = Scenario(
    "open inference protocol",
    archives=("echo",),
    models=("echo.mar",),
    config={"default_workers_per_model": "1", "ts_open_inference_protocol": "true"},
    cases=[
        *(infer(f"GET {path}", path, method="GET",
                deliberate="models-of-open-inference", our_status=200)
          for path in ("/v2/models/echo", "/v2/models/echo/ready")),
        *(infer(f"GET {path}", path, method="GET")
          for path in ("/v2", "/v2/", "/v2/health/live", "/v2/health/ready", "/v2/health",
                       "/v2/health/other", "/v2/health/live/more", "/v2/models",
                       "/v2/models/echo/versions",
                       "/v2/models/echo/versions/1.0", "/v2/models/unknown/versions/1.0",
                       "/v2/models/echo/versions/1.0/infer", "/v2/models/echo/versions/1.0/ready",
                       "/v2/models/echo/versionsmore/x", "/v1/models/echo/versions/1.0",
                       "/a/b/c/versions", "/a/b/versions", "/a/b/versions/d", "/V2",
                       "/v2/models/echo/infer/more", "/v2/more")),
        *(infer(f"{method} {path}", path, b"x" if method == "POST" else b"", method=method)
          for method in ("POST", "HEAD", "OPTIONS")
          for path in ("/v2", "/v2/health/live", "/v2/health/ready",
                       "/v2/models/echo/versions/1.0")),
        infer("infer beside it", "/v2/models/echo/infer", b"x"),
        manage("GET /v2 on management", "GET", "/v2"),
    ],
)  # fmt: skip

DESCRIPTIONS = Scenario(
    "api descriptions",
    archives=("echo", "echo_v2"),
    models=("echo.mar",),
    config={"default_workers_per_model": "1"},
    cases=[
        *(infer(f"{method} {path}", path, method=method)
          for method, path in (
              ("OPTIONS", "/"), ("OPTIONS", "//"), ("GET", "/api-description"),
              ("POST", "/api-description"), ("GET", "/api-description/more"),
              ("GET", "//api-description"),
              ("OPTIONS", "/predictions/echo"), ("OPTIONS", "/predictions/echo/1.0"),
              ("OPTIONS", "/predictions/echo/9.9"), ("OPTIONS", "/predictions/echo/1.0/more"),
              ("OPTIONS", "/explanations/echo"), ("OPTIONS", "/predictions/unknown"),
              ("OPTIONS", "/predictions"), ("OPTIONS", "/ping"),
              ("OPTIONS", "/v1/models/echo:predict"), ("OPTIONS", "/v1/models/echo:explain"),
              ("OPTIONS", "/v1/models/unknown:predict"), ("OPTIONS", "/v2/models/echo/infer"),
              ("OPTIONS", "/models/echo/invoke"), ("OPTIONS", "/models/unknown/invoke"),
              ("OPTIONS", "/echo/predict"), ("OPTIONS", "/echo/1.0/predict"),
              ("OPTIONS", "/invocations"), ("OPTIONS", "/invocations?model_name=echo"),
              ("OPTIONS", "/unknown"))),
        infer("OPTIONS *", "*", method="OPTIONS",
              deliberate="no-path", our_status=405),
        *(manage(f"{method} {path} on management", method, path)
          for method, path in (
              ("OPTIONS", "/"), ("OPTIONS", "/models/echo"), ("OPTIONS", "/models/echo/9.9"),
              ("OPTIONS", "/models/unknown"), ("OPTIONS", "/models"), ("OPTIONS", "/unknown"),
              ("OPTIONS", "/models/unknown/1.0/set-default"), ("OPTIONS", "/models/echo/all"))),
    ],
)  # fmt: skip

CORS = Scenario(
    "cors",
    archives=("echo",),
    models=("echo.mar",),
    config={
        "default_workers_per_model": "1",
        "cors_allowed_origin": "https://example.org",
        "cors_allowed_methods": "GET, POST, PUT, OPTIONS",
        "cors_allowed_headers": "X-Custom-Header",
    },
    cases=[
        infer(
            "preflight",
            ECHO,
            method="OPTIONS",
            headers=[
                ("Origin", "https://example.org"),
                ("Access-Control-Request-Method", "POST"),
                ("Access-Control-Request-Headers", "X-Custom-Header"),
            ],
        ),
        infer("preflight of an unknown model", "/predictions/unknown", method="OPTIONS",
              headers=[("Origin", "https://example.org")]),
        infer("another origin", ECHO, b"x", headers=[("Origin", "https://example.com")]),
        infer("without an origin", "/ping", method="GET"),
        infer("an error", "/unknown", method="GET"),
        infer("by the handler", ECHO, b"x",
              headers=[("reply-headers", '{"Access-Control-Allow-Origin": "*"}'),
                       ("reply-text", "mine")]),
        infer("malformed", ECHO, raw=b"what is this\r\n\r\n"),
        manage("management", "GET", "/models"),
        manage("preflight of management", "OPTIONS", "/models"),
    ],
)  # fmt: skip


SHARED_PATHS = [
    ("GET", "/ping"), ("GET", "/models"), ("GET", "/models/echo"), ("GET", "/models/echo/1.0"),
    ("GET", "/models/echo/all"), ("GET", "/models/unknown"), ("PUT", "/models/echo/1.0"),
    ("PUT", "/models/echo/1.0/set-default"), ("PUT", "/models/echo?min_worker=1&synchronous=true"),
    ("POST", "/models/echo/invoke"), ("POST", "/models"), ("POST", "/models?url=unknown.mar"),
    ("GET", "/v1/models/echo"), ("GET", "/v1/models/unknown"), ("GET", "/"), ("OPTIONS", "/"),
    ("GET", "/metrics"), ("GET", "/metrics/more"), ("GET", "/nothing"), ("GET", "/api-description"),
    ("OPTIONS", "/models/echo"), ("OPTIONS", "/predictions/echo"), ("GET", "/token"),
    ("POST", "/v1/models/echo:predict"), ("POST", "/echo/predict"), ("POST", "/invocations"),
    ("POST", "/models/invoke"), ("GET", "/models/a/b/c"),
    ("DELETE", "/models/unknown"), ("DELETE", "/models/echo/9.9"), ("PATCH", "/models/echo"),
]  # fmt: skip
SHARED_PORT = Scenario(
    "one port for both",
    archives=("echo",),
    models=("echo.mar",),
    config={"default_workers_per_model": "1", "metrics_mode": "prometheus"},
    shares_port=True,
    cases=[
        *(Case(f"{method} {path}", "inference", method, path,
               headers=(("reply-text", "x"),) if method == "POST" else (),
               lines=rb"^# TYPE (?!torchkeep)" if path.startswith("/metrics") else None)
          for method, path in SHARED_PATHS),
        *(Case(f"{method} /models/predict", "inference", method, "/models/predict",
               deliberate="predict-on-a-shared-port", our_status=status)
          for method, status in (("GET", 404), ("POST", 405), ("DELETE", 404))),
        Case("metrics port beside it", "metrics", "GET", "/metrics",
             lines=rb"^# TYPE (?!torchkeep)"),
        Case("unregister", "inference", "DELETE", "/models/echo"),
    ],
)  # fmt: skip

NO_METRICS_BESIDE = Scenario(
    "one port for both without metrics",
    archives=(),
    config={"enable_metrics_api": "false"},
    shares_port=True,
    cases=[
        Case("metrics", "inference", "GET", "/metrics"),
        Case("describe the api", "inference", "OPTIONS", "/"),
    ],
)

SCENARIOS = [
    ROUTES,
    OTHER_ROUTES,
    PORT_PATHS,
    ONE_MODEL,
    OPEN_INFERENCE,
    DESCRIPTIONS,
    CORS,
    SHARED_PORT,
    NO_METRICS_BESIDE,
]
