"""worker_protocol_and_lifecycle.md: queues, tickets, workers that come and go."""

from conformance.case import Scenario, infer, manage, register

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


SCENARIOS = [TICKETS]
