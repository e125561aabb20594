"""The ways in which a model may be run: sequences, steps, coroutines, micro-batches."""

from conformance.case import Begin, Case, Finish, Scenario, infer, manage, register


def sequence(name: str, sequence_id: str | None = None, **options: object) -> Case:
    headers = list(options.pop("headers", ()))  # type: ignore[call-overload]
    if sequence_id is not None:
        headers.append(("ts_request_sequence_id", sequence_id))
    return infer(name, "/predictions/sequences", b"x", headers=headers, **options)


SEQUENCES = [
    register("sequences"),
    manage("describe sequences", "GET", "/models/sequences"),
    sequence("the first of a", "a", headers=[("tell-id", "yes")]),
    sequence("the client says start", "s", headers=[("ts_request_sequence_start", "true")]),
    sequence("one sequence too many", "b"),
    sequence("one too many without an id"),
    infer("one too many of a version", "/predictions/sequences/1.0", b"x"),
    sequence("the second of a", "a"),
    sequence("the handler ends a", "a", headers=[("ends", "a")]),
    sequence("after a has ended", "b", deliberate="handlers-end-sequences", our_status=200),
    sequence("without an id", until=rb"seen"),
    sequence("with an empty id", "", until=rb"seen"),
]


def steps(name: str, way: str = "", **options: object) -> Case:
    headers = [("way", way), *options.pop("headers", ())]  # type: ignore[misc]
    return infer(name, "/predictions/steps", b"x", headers=headers, **options)


STEPS = [
    register("steps"),
    manage("describe steps", "GET", "/models/steps"),
    steps("three steps"),
    steps("seven steps", headers=[("steps", "7")]),
    steps("the whole answer", "whole"),
    steps("no criteria", "no-criteria"),
    steps("the first status counts", "status"),
    steps("an error in the second step", "raises"),
    steps("after an error"),
    steps("finished in one step", headers=[("steps", "1")], timeout_s=4,
          deliberate="one-step-streams", our_status=200),
    steps("a criterion raises", "criterion-raises",
          deliberate="criteria-that-raise", our_status=503),
]  # fmt: skip


def coroutine(name: str, way: str | None = None, seconds: float = 0, **options: object) -> Case:
    headers = [("take-s", str(seconds))]
    if way is not None:
        headers.append(("way", way))
    return infer(name, "/predictions/coroutines", b"x", headers=headers, **options)


COROUTINES = [
    register("coroutines"),
    coroutine("one coroutine"),
    coroutine("it has a context of its own"),
    coroutine("longer than the response timeout", seconds=2),
    coroutine("it streams", "streams"),
    coroutine("it sets a status", "sets_status"),
    coroutine("it raises", "raises"),
    coroutine("it refuses", "refuses"),
    coroutine("it returns no list", "no_list"),
    coroutine("it returns too much", "too_long"),
    coroutine("it returns an object", "an_object"),
    coroutine("its stream breaks off", "stream_raises"),
    coroutine("it sends a code", "sends_a_code"),
    Begin(coroutine("neighbour", seconds=3, deliberate="async-neighbours", our_status=200)),
    Case("it is at work", "log", "", "model_log.log", lines=rb"taking", line_count=13),
    coroutine("it raises beside another", "raises"),
    Finish("neighbour"),
    register("plain_function"),
    infer("a plain function", "/predictions/plain_function", b"x",
          deliberate="async-plain-functions", our_status=200),
    coroutine("its process dies", "dies", timeout_s=4,
              deliberate="async-deaths", our_status=500),
]  # fmt: skip

MICRO_BATCHES = [
    register("micro_batches"),
    infer("a part", "/predictions/micro_batches", b"a"),
    infer("two parts", "/predictions/micro_batches", b"a", batch_of=3, answers_differ=True),
    infer("a part that fails", "/predictions/micro_batches", b"bad", timeout_s=4,
          deliberate="micro-batch-errors", our_status=503),
]  # fmt: skip

SCENARIOS = [
    Scenario(
        "ways of running",
        archives=("sequences", "steps", "coroutines", "plain_function"),
        cases=[*SEQUENCES, *STEPS, *COROUTINES],
    ),
    Scenario(
        "micro-batching",
        archives=("micro_batches",),
        cases=MICRO_BATCHES,
        needs_torch=True,
        is_long=True,
    ),
]
