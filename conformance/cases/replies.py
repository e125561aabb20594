"""What a client gets of what a handler returns, raises or breaks."""

from conformance.case import ECHO, Scenario, infer, register, reply

REPLY_KINDS = [
    *("bytes", "bytearray", "empty-bytes", "str", "empty-str", "dict", "empty-dict"),
    *("list", "empty-list", "tuple", "int", "float", "nan", "true", "none", "int-key"),
]

REPLIES = Scenario(
    "replies",
    archives=("echo", "replies"),
    cases=[
        register("echo"),
        register("replies"),
        *(
            infer(f"reply {kind}", f"/predictions/replies/1.0/{kind}")
            for kind in REPLY_KINDS
        ),
        infer(
            "content type",
            ECHO,
            headers=[("reply-content-type", "text/x-own"), ("reply-text", "typed")],
        ),
        infer(
            "header",
            ECHO,
            headers=[("reply-headers", '{"X-Own": "Value", "x-two": ""}'), ("reply-text", "h")],
        ),
        infer(
            "content type by header",
            ECHO,
            headers=[
                ("reply-content-type", "text/plain"),
                ("reply-headers", '{"Content-Type": "text/html"}'),
                ("reply-text", "h"),
            ],
        ),
        infer(
            "headers that stay the server's",
            ECHO,
            headers=[
                (
                    "reply-headers",
                    '{"x-request-id": "mine", "Content-Length": "1", "Connection": "close", '
                    '"Pragma": "mine", "Cache-Control": "mine", "Expires": "mine"}',
                ),
                ("reply-text", "h"),
            ],
        ),
        infer("header value in latin-1", ECHO,
              headers=[("reply-headers", '{"x-umlaut": "\\u00e4"}'), ("reply-text", "h")]),
        *(infer(f"status {status}", ECHO, headers=reply(status)) for status in
          ("200", "201", "204", "301", "400", "404", "413", "418", "500", "513", "599", "999")),
        *(infer(f"status {status} with a phrase", ECHO, headers=reply(status, "In My Words"))
          for status in ("200", "201", "404", "999")),
        *(infer(f"status {status}", ECHO, headers=reply(status), timeout_s=3,
                deliberate="informational-status", our_status=500)
          for status in ("100", "103")),
    ],
)  # fmt: skip

FAILURE_WAYS = [
    *("value-error", "memory-error", "cuda", "cuda-lower-case", "status-then-error"),
    *("too-long", "too-short", "none", "dict", "str", "tuple", "object", "set"),
    *("prediction-exception", "prediction-exception-cuda"),
    *(
        f"prediction-exception/{code}"
        for code in (-1, 200, 302, 400, 404, 413, 429, 500, 513, 599, 999)
    ),
    "fine",
]

FAILURES = Scenario(
    "failures",
    archives=("failures",),
    cases=[
        register("failures"),
        *(
            infer(f"failure {way}", f"/predictions/failures/1.0/{way}", b"x")
            for way in FAILURE_WAYS
        ),
        infer("explain a failure", "/explanations/failures/1.0/value-error", b"x"),
        infer("HEAD a failure", "/predictions/failures/1.0/value-error", method="HEAD"),
    ],
)

DEATH_WAYS = [
    *("exit", "exit-3", "os-exit", "interrupt", "int-header", "newline-header", "text-status"),
]

DEATHS = Scenario(
    "deaths",
    archives=("failures", "silent"),
    cases=[
        register("failures"),
        *(
            case
            for way in DEATH_WAYS
            for case in (
                infer(f"death {way}", f"/predictions/failures/1.0/{way}", b"x"),
                infer(f"answer after {way}", "/predictions/failures/1.0/fine", b"x"),
            )
        ),
        infer("death sigkill", "/predictions/failures/1.0/sigkill", b"x", repeat_while=(500,)),
        infer("answer after sigkill", "/predictions/failures/1.0/fine", b"x"),
        infer("healthy after deaths", "/ping", method="GET"),
        register("failures", model_name="hasty", response_timeout=0),
        infer("answer in no time", "/predictions/hasty/1.0/fine", b"x"),
        register("silent"),
        infer("no answer", "/predictions/silent/1.0/never", b"x"),
        infer("answer after no answer", "/predictions/silent/1.0/fine", b"x"),
    ],
)

BATCHES = Scenario(
    "batches",
    archives=("batches", "batches_fail"),
    cases=[
        register("batches"),
        register("batches_fail"),
        infer("batch of two", "/predictions/batches/1.0/batch-size", batch_of=2),
        infer("batch too long", "/predictions/batches_fail/1.0/too-long", batch_of=2),
        infer("batch of errors", "/predictions/batches_fail/1.0/value-error", batch_of=2),
        infer(
            "batch of exceptions",
            "/predictions/batches_fail/1.0/prediction-exception/404",
            batch_of=2,
        ),
        infer("batch that dies", "/predictions/batches_fail/1.0/os-exit", batch_of=2),
        infer("batch after a death", "/predictions/batches_fail/1.0/fine", batch_of=2),
    ],
)


SCENARIOS = [REPLIES, FAILURES, DEATHS, BATCHES]
