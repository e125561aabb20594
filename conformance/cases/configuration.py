"""What keys, variables and model-config.yaml come to, as clients see it."""

import json

from conformance.archives import CONFIGS
from conformance.case import ECHO, JSON, Case, Scenario, infer, manage, register

READY = rb'"status": "READY"'


def described(name: str, path: str, workers: int = 0) -> Case:
    """A description, once so many workers are ready."""
    until = rb"(?s)" + rb".*".join([READY] * workers) if workers else None
    return manage(name, "GET", path, until=until)


DEFAULTS = Scenario(
    "configured defaults",
    archives=("echo", "echo_v2", "echo_config", "no_name", "no_zip", "handlerless"),
    config={
        "default_workers_per_model": "2",
        "job_queue_size": "$$QUEUE$$",
        "default_response_timeout": "11",
        "default_startup_timeout": "12",
        "default_service_handler": "own.py:answer",
        "unknown_key": "is ignored",
        "load_models": "echo.mar,renamed=echo.mar,unknown.mar,no_zip.mar,handlerless.mar,"
        "no_name.mar",
        "models": json.dumps(
            {
                "renamed": {
                    "1.0": {
                        "defaultVersion": True, "marName": "echo.mar", "minWorkers": 1,
                        "maxWorkers": 3, "batchSize": 3, "maxBatchDelay": 5, "responseTimeout": 6,
                        "startupTimeout": 7,
                    }
                },
                "later": {"1.0": {"minWorkers": 1, "batchSize": 4, "responseTimeout": 8}},
                "odd": {"1.0": {"batchSize": -1, "maxBatchDelay": 0, "responseTimeout": 0}},
                "echo_config": {"1.0": {"batchSize": 9, "responseTimeout": 8}},
            }
        ),
    },
    environment={"QUEUE": "7"},
    cases=[
        manage("list", "GET", "/models"),
        manage("a broken one", "GET", "/models/no_zip"),
        manage("one without a name", "GET", "/models/no_name"),
        infer("the default handler", "/predictions/handlerless"),
        register("echo_v2"),
        *(register("echo", model_name=name, initial_workers=0)
          for name in ("later", "odd", "plain")),
        manage("register with a size", "POST",
               "/models?url=echo.mar&model_name=sized&batch_size=2&response_timeout=3"
               "&initial_workers=0"),
        manage("register by default", "POST", "/models?url=echo.mar&model_name=defaulted"),
        manage("register without workers from a config", "POST",
               "/models?url=echo_config.mar&initial_workers=0"),
        *(manage(f"describe {name}", "GET", f"/models/{name}")
          for name in ("later", "odd", "plain", "sized", "defaulted", "echo_config")),
    ],
)  # fmt: skip

LOADED = Scenario(
    "models of the start",
    archives=("echo",),
    config={
        "default_workers_per_model": "1",
        "models": json.dumps(
            {"renamed": {"1.0": {"minWorkers": 2, "maxWorkers": 3, "batchSize": 3}}}
        ),
    },
    models=("renamed=echo.mar",),
    cases=[
        described("describe", "/models/renamed", 2),
        manage("of no such name", "GET", "/models/echo"),
        manage("scale beyond", "PUT", "/models/renamed?min_worker=4&synchronous=true"),
        described("describe what was scaled", "/models/renamed", 4),
    ],
)

ALL = Scenario(
    "all models of the store",
    archives=("echo", "echo_tgz", "echo_dir", "rows", "no_name", "empty_file"),
    config={"default_workers_per_model": "1", "load_models": "ALL"},
    cases=[
        manage("list", "GET", "/models"),
        # Which worker has which id follows the order of the directory.
        manage("one that is none", "GET", "/models/empty_file", lines=rb'^(?!.*"id")'),
    ],
)

VARIABLES = Scenario(
    "configuration by variables",
    archives=("echo", "environment"),
    args=(),
    config={
        "enable_envvars_config": "true",
        "blacklist_env_vars": ".*SECRET.*|AWS_.+",
        "job_queue_size": "5",
        "default_response_timeout": "11",
    },
    environment={
        "TS_JOB_QUEUE_SIZE": "9",
        "TS_DECODE_INPUT_REQUEST": "false",
        "TS_ENABLE_MODEL_API": "true",
        "TS_DISABLE_TOKEN_AUTHORIZATION": "true",
        "TS_CORS_ALLOWED_ORIGIN": "https://example.org",
        "TS_MAX_REQUEST_SIZE": "1000",
        "TS_DEFAULT_WORKERS_PER_MODEL": "1",
        "TS_METRICS_MODE": "prometheus",
        "TS_BLACKLIST_ENV_VARS_NOT": "x",
        "MY_SECRET_KEY": "hidden",
        "SECRET": "hidden",
        "AWS_REGION": "hidden",
        "MY_AWS_REGION": "seen",
        "PASSED": "seen",
    },
    cases=[
        register("echo"),
        manage("describe", "GET", "/models/echo"),
        infer("json not decoded", ECHO, b"[1]", JSON),
        infer("too large", ECHO, b"x" * 1001),
        register("environment"),
        infer("variables of a worker", "/predictions/environment",
              b"MY_SECRET_KEY SECRET AWS_REGION MY_AWS_REGION PASSED TS_DECODE_INPUT_REQUEST"),
        Case("metrics", "metrics", "GET", "/metrics", lines=rb"^# TYPE (?!torchkeep)"),
    ],
)  # fmt: skip

NO_VARIABLES = Scenario(
    "variables without leave",
    archives=("echo", "environment"),
    config={"job_queue_size": "5"},
    environment={
        "TS_JOB_QUEUE_SIZE": "9",
        "TS_OPEN_INFERENCE_PROTOCOL": "oip",
        "MY_SECRET_KEY": "seen",
    },
    cases=[
        register("echo"),
        manage("describe", "GET", "/models/echo"),
        infer("always read", "/v2", method="GET"),
        register("environment"),
        infer("variables of a worker", "/predictions/environment", b"MY_SECRET_KEY UNSET"),
    ],
)

REPLY_LIMIT = Scenario(
    "limit of replies",
    archives=("echo",),
    config={"max_response_size": "10000"},
    cases=[
        register("echo"),
        infer("a small one", ECHO, headers=[("reply-text", "x" * 5000)]),
        infer("a large one", ECHO, b"y" * 20000),
        manage("the worker comes back", "GET", "/models/echo", until=READY),
        infer("after it", ECHO, headers=[("reply-text", "x")]),
    ],
)

MODEL_API_BY_KEY = Scenario(
    "switches in the file",
    archives=("echo",),
    args=(),
    config={"enable_model_api": "true", "disable_token_authorization": "true"},
    cases=[register("echo"), infer("predict", ECHO, headers=[("reply-text", "x")])],
)

NO_MAPPINGS = ("no_mapping", "nothing")
# Difference, and our statuses of the registration and of the description.
DELIBERATE = {name: ("empty-configs", 200, 200) for name in NO_MAPPINGS}
DELIBERATE["sequences_only"] = ("endless-sequences", 400, 404)
MODEL_CONFIGS = Scenario(
    "model-config.yaml",
    archives=tuple(f"config_{name}" for name in CONFIGS),
    cases=[
        step
        for name in CONFIGS
        for step in (
            manage(f"register {name}", "POST", f"/models?url=config_{name}.mar&initial_workers=0"
                   "&batch_size=6&response_timeout=9&startup_timeout=10",
                   deliberate=DELIBERATE.get(name, (None,))[0],
                   our_status=DELIBERATE[name][1] if name in DELIBERATE else None),
            manage(f"describe {name}", "GET", f"/models/config_{name}",
                   deliberate=DELIBERATE.get(name, (None,))[0],
                   our_status=DELIBERATE[name][2] if name in DELIBERATE else None),
        )
    ],
)  # fmt: skip

SCENARIOS = [
    DEFAULTS, LOADED, ALL, VARIABLES, NO_VARIABLES, REPLY_LIMIT, MODEL_API_BY_KEY, MODEL_CONFIGS,
]  # fmt: skip
