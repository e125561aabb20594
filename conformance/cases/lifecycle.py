"""Queues, tickets, workers that come and go."""

from dataclasses import replace

from conformance.case import (
    ECHO,
    JSON,
    Begin,
    Case,
    Finish,
    KillWorkers,
    Restart,
    Scenario,
    infer,
    manage,
    register,
)

TICKETS = Scenario(
    "job tickets",
    archives=("tickets",),
    cases=[
        register("tickets"),
        manage("describe", "GET", "/models/tickets"),
        infer("an idle worker", "/predictions/tickets", b"x"),
        infer("after it", "/predictions/tickets", b"x"),
        infer("two at once", "/predictions/tickets", b"x", headers=[("take-s", "1")],
              batch_of=2, answers_differ=True),
        infer("three of a version", "/predictions/tickets/1.0", b"x", headers=[("take-s", "1")],
              batch_of=3, answers_differ=True),
        infer("after them", "/predictions/tickets", b"x"),
    ],
)  # fmt: skip


def takes(name: str, path: str, seconds: float, **options: object) -> Case:
    return infer(name, path, b"x", headers=[("take-s", str(seconds))], **options)


def at_work(name: str, count: int) -> Case:
    """Handlers have begun so many of these requests."""
    return Case(name, "log", "", "model_log.log", lines=rb"taking", line_count=count)


def waiting(name: str, path: str, count: int) -> Case:
    """So many requests stand in the queue."""
    return manage(name, "GET", path, until=b'"pendingRequests": %d' % count)


FULL_QUEUE = Scenario(
    "full queue",
    archives=("narrow",),
    cases=[
        register("narrow"),
        Begin(takes("first", "/predictions/narrow", 4)),
        at_work("the first is at work", 1),
        Begin(takes("second", "/predictions/narrow", 0)),
        Begin(takes("third", "/predictions/narrow/1.0", 0)),
        waiting("two wait", "/models/narrow", 2),
        infer("no room", "/predictions/narrow", b"x"),
        infer("no room in a version", "/predictions/narrow/1.0", b"x"),
        infer("no room to explain", "/explanations/narrow", b"x"),
        manage("no room to describe", "GET", "/models/narrow?customized=true"),
        Finish("first"),
        Finish("second"),
        Finish("third"),
        infer("room again", "/predictions/narrow", b"x"),
    ],
)

SCALING = Scenario(
    "scaling",
    archives=("slow", "load_value_error"),
    cases=[
        register("slow"),
        manage("to three", "PUT", "/models/slow?min_worker=3&synchronous=true"),
        manage("three", "GET", "/models/slow"),
        manage("at most two", "PUT", "/models/slow?min_worker=1&max_worker=2&synchronous=true"),
        manage("two", "GET", "/models/slow"),
        manage("within", "PUT", "/models/slow?min_worker=1&max_worker=4&synchronous=true"),
        manage("still two", "GET", "/models/slow"),
        manage("a number that is none", "PUT", "/models/slow?min_worker=x&synchronous=true"),
        manage("one", "GET", "/models/slow"),
        manage("a version by query", "PUT",
               "/models/slow?min_worker=1&model_version=1.0&synchronous=true"),
        manage("an unknown version by query", "PUT", "/models/slow?min_worker=1&model_version=2"),
        manage("both", "PUT", "/models/slow/1.0?min_worker=1&model_version=2&synchronous=true"),
        manage("negative", "PUT", "/models/slow?min_worker=-1&max_worker=1&synchronous=true"),
        manage("after a negative one", "GET", "/models/slow"),
        manage("parameters without effect", "PUT",
               "/models/slow?min_worker=1&number_gpu=3&timeout=1&synchronous=TRUE"),
        manage("by json", "PUT", "/models/slow?synchronous=true",
               headers=(("Content-Type", JSON),), body=b'{"min_worker": 3}'),
        manage("in the background", "PUT", "/models/slow?min_worker=2"),
        manage("both come", "GET", "/models/slow", until=rb"(?s)READY.*READY"),
        manage("to zero", "PUT", "/models/slow?min_worker=0&synchronous=true"),
        manage("none", "GET", "/models/slow"),
        infer("nobody", "/predictions/slow", b"x"),
        infer("nobody of a version", "/predictions/slow/1.0", b"x"),
        manage("nobody describes", "GET", "/models/slow?customized=true"),
        infer("healthy", "/ping", method="GET"),
        manage("up again", "PUT", "/models/slow?min_worker=1&synchronous=true"),
        manage("a new one", "GET", "/models/slow"),
        infer("somebody", "/predictions/slow", b"x"),
        manage("register what does not load", "POST", "/models?url=load_value_error.mar"),
        manage("scale what does not load", "PUT",
               "/models/load_value_error?min_worker=1&synchronous=true",
               comparison="load failure"),
        manage("it stays", "GET", "/v1/models/load_value_error"),
        infer("healthy for a while", "/ping", method="GET"),
        manage("unregister it", "DELETE", "/models/load_value_error"),
        manage("negative maximum", "PUT", "/models/slow?min_worker=-2&max_worker=-1",
               comparison="load failure"),
        manage("after a negative maximum", "GET", "/models/slow",
               deliberate="refused-scaling-changes-nothing"),
    ],
)  # fmt: skip

AWAY = Scenario(
    "models that go while they work",
    is_long=True,
    archives=("slow", "narrow"),
    cases=[
        register("slow"),
        Begin(takes("while it scales down", "/predictions/slow", 3, timeout_s=8,
                    deliberate="drained-workers", our_status=200)),
        at_work("it is at work", 1),
        Begin(infer("queued while it scales down", "/predictions/slow", b"x", timeout_s=8,
                    deliberate="no-request-hangs", our_status=503)),
        waiting("one waits", "/models/slow", 1),
        manage("to zero", "PUT", "/models/slow?min_worker=0&synchronous=true"),
        Finish("while it scales down"),
        Finish("queued while it scales down"),
        register("narrow"),
        Begin(takes("while it goes", "/predictions/narrow", 3, timeout_s=8,
                    deliberate="drained-workers", our_status=200)),
        at_work("it is at work, too", 2),
        Begin(infer("queued while it goes", "/predictions/narrow", b"x", timeout_s=8,
                    deliberate="no-request-hangs", our_status=503)),
        waiting("another waits", "/models/narrow", 1),
        manage("unregister", "DELETE", "/models/narrow"),
        Finish("while it goes"),
        Finish("queued while it goes"),
        infer("gone", "/predictions/narrow", b"x"),
        manage("what is left", "GET", "/models"),
    ],
)  # fmt: skip

CRASHES = Scenario(
    "crashes",
    is_long=True,
    archives=("slow", "mortal"),
    cases=[
        register("slow"),
        KillWorkers("slow"),
        infer("healthy meanwhile", "/ping", method="GET"),
        manage(
            "it comes back",
            "GET",
            "/models/slow",
            until=rb'"status": "UNLOADING"',
            deliberate="reasons-in-descriptions",
        ),
        manage("it is back", "GET", "/models/slow", until=rb'"status": "READY"'),
        infer("and answers", "/predictions/slow", b"x"),
        register("mortal"),
        KillWorkers("mortal"),
        infer("without retries nothing is healthy", "/ping", method="GET", until=rb"Unhealthy"),
        manage("it stays away", "GET", "/models/mortal", deliberate="reasons-in-descriptions"),
        infer("requests are accepted", "/predictions/mortal", b"x", timeout_s=3),
        manage("kserve readiness of the dead", "GET", "/v1/models/mortal"),
        manage("unregister it", "DELETE", "/models/mortal"),
        infer("healthy without it", "/ping", method="GET"),
    ],
)

TIME_LIMITS = Scenario(
    "time limits",
    is_long=True,
    archives=("slow_load", "impatient", "slow"),
    cases=[
        replace(register("slow_load", startup_timeout=1), comparison="load failure"),
        # What stays registered after it is a race in TorchServe: not asked.
        register("slow", response_timeout=1),
        takes("no answer in time", "/predictions/slow", 4),
        manage("a new worker", "GET", "/models/slow", until=rb'"status": "READY"'),
        takes("an answer in time", "/predictions/slow", 0),
        register("impatient"),
        takes("in time for its client", "/predictions/impatient", 0),
        Begin(takes("too late for its client", "/predictions/impatient", 3, timeout_s=6,
                    deliberate="client-timeout", our_status=503)),
        at_work("it is at work", 2),
        infer("queued too long", "/predictions/impatient", b"x", timeout_s=6,
              deliberate="client-timeout", our_status=503),
        Finish("too late for its client"),
        takes("the worker lives", "/predictions/impatient", 0, repeat_while=(503,)),
    ],
)  # fmt: skip

BACKGROUND = Scenario(
    "workers in the background",
    is_long=True,
    archives=("slow_load", "echo"),
    cases=[
        manage("register", "POST",
               "/models?url=slow_load.mar&initial_workers=2&synchronous=false"),
        manage("kserve readiness while they load", "GET", "/v1/models/slow_load"),
        infer("healthy while they load", "/ping", method="GET"),
        infer("a request waits for them", "/predictions/slow_load", b"x"),
        manage("both are ready", "GET", "/models/slow_load", until=rb"(?s)READY.*READY"),
        manage("register by another word", "POST",
               "/models?url=echo.mar&initial_workers=1&synchronous=yes"),
        manage("it comes", "GET", "/models/echo", until=rb"READY"),
    ],
)  # fmt: skip

BATCHING = Scenario(
    "batching",
    is_long=True,
    archives=("replies",),
    cases=[
        manage("register", "POST", "/models?url=replies.mar&batch_size=3&max_batch_delay=2000"
               "&initial_workers=1"),
        infer("a full batch", "/predictions/replies/1.0/batch-size", batch_of=3),
        infer("half a batch", "/predictions/replies/1.0/batch-size", batch_of=2),
        infer("one", "/predictions/replies/1.0/batch-size"),
        manage("describe", "GET", "/models/replies"),
    ],
)  # fmt: skip

SNAPSHOTS = Scenario(
    "snapshots",
    archives=("echo", "echo_v2", "echo_config"),
    has_snapshots=True,
    cases=[
        manage("register", "POST", "/models?url=echo.mar&batch_size=3&max_batch_delay=7"
               "&response_timeout=9&startup_timeout=19"),
        manage("register a second version", "POST", "/models?url=echo_v2.mar"),
        manage("set default", "PUT", "/models/echo/2.0/set-default"),
        manage("scale", "PUT", "/models/echo/2.0?min_worker=1&max_worker=2&synchronous=true"),
        manage("register another", "POST", "/models?url=echo.mar&model_name=gone"),
        manage("unregister it", "DELETE", "/models/gone"),
        Restart(),
        manage("list", "GET", "/models"),
        manage("the default version", "GET", "/models/echo", until=rb"READY"),
        manage("the other version", "GET", "/models/echo/1.0"),
        infer("predict", ECHO, headers=[("reply-text", "x")]),
        infer("invocations of the only model", "/invocations", headers=[("reply-text", "x")]),
        manage("unregister a version", "DELETE", "/models/echo/1.0"),
        manage("register from a config", "POST", "/models?url=echo_config.mar"),
        manage("scale what has a config", "PUT",
               "/models/echo_config?min_worker=0&synchronous=true"),
        Restart(),
        manage("list again", "GET", "/models"),
        manage("the version left", "GET", "/models/echo", until=rb"READY"),
        manage("what has a config", "GET", "/models/echo_config"),
    ],
)  # fmt: skip


SCENARIOS = [
    TICKETS, FULL_QUEUE, SCALING, AWAY, CRASHES, TIME_LIMITS, BACKGROUND, BATCHING, SNAPSHOTS,
]  # fmt: skip
