"""Answers in pieces."""

from conformance.case import Case, Scenario, infer, register

STREAM_WAYS = [
    *("pieces", "one", "none", "kinds", "headers", "framing-headers"),
    *("empty-first", "empty-between", "empty-last", "empty-all"),
    *("status-201", "status-204", "late-status"),
    *("value-error", "prediction-exception", "too-short", "no-list-last", "object-last"),
    *("os-exit", "never", "slow"),
    *("wrong-length", "too-few", "no-list", "int-header", "no-context", "message-not-text"),
]


def after_a_code(way: str) -> tuple[Case, Case]:
    """TorchServe: what the handler sends afterwards takes the worker and the next request."""
    return (
        infer(f"stream {way}", f"/predictions/streams/1.0/{way}", b"x"),
        infer(
            f"answer after stream {way}",
            "/predictions/streams/1.0/none",
            b"x",
            deliberate="codes-in-streams",
            our_status=200,
        ),
    )


STREAMS = Scenario(
    "streams",
    archives=("streams",),
    cases=[
        register("streams"),
        *(infer(f"stream {way}", f"/predictions/streams/1.0/{way}", b"x") for way in STREAM_WAYS),
        infer("stream HEAD", "/predictions/streams/1.0/pieces", method="HEAD"),
        infer(
            "stream HTTP/1.0",
            "/predictions/streams/1.0/pieces",
            raw=b"GET /predictions/streams/1.0/pieces HTTP/1.0\r\nHost: localhost\r\n\r\n",
        ),
        infer("stream explanation", "/explanations/streams/1.0/pieces", b"x"),
        infer(
            "stream status-404",
            "/predictions/streams/1.0/status-404",
            b"x",
            deliberate="pieces-of-errors",
        ),
        infer(
            "stream newline-header",
            "/predictions/streams/1.0/newline-header",
            b"x",
            deliberate="header-injection",
            our_status=503,
        ),
        infer(
            "stream unknown-request",
            "/predictions/streams/1.0/unknown-request",
            b"x",
            deliberate="pieces-for-nobody",
            our_status=503,
        ),
        *(
            infer(
                f"stream {way}",
                f"/predictions/streams/1.0/{way}",
                b"x",
                deliberate="last-piece-first",
                our_status=200,
                timeout_s=3,
            )
            for way in ("says-true", "says-false")
        ),
        *(
            case
            for way in ("code-first", "code-201", "code-later", "object-piece", "object-later")
            for case in after_a_code(way)
        ),
        infer("answer after streams", "/predictions/streams/1.0/none", b"x"),
        infer("healthy after streams", "/ping", method="GET"),
    ],
)

STREAM_BATCHES = Scenario(
    "stream batches",
    archives=("stream_batches",),
    cases=[
        register("stream_batches"),
        *(
            infer(f"batch {way}", f"/predictions/stream_batches/1.0/{way}", batch_of=2)
            for way in ("pieces", "headers", "empty-first", "value-error", "os-exit", "code-first")
        ),
        infer(
            "batch after a code",
            "/predictions/stream_batches/1.0/none",
            batch_of=2,
            deliberate="codes-in-streams",
            our_status=200,
        ),
        *(
            infer(
                f"batch {way}",
                f"/predictions/stream_batches/1.0/{way}",
                batch_of=2,
                answers_differ=True,
            )
            for way in ("row-numbers", "first-of-the-batch", "second-of-the-batch")
        ),
    ],
)


SCENARIOS = [STREAMS, STREAM_BATCHES]
