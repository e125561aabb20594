"""All scenarios, in the order in which they run. A new one is added in its module of `cases`."""

from conformance.case import Scenario
from conformance.cases import (
    configuration,
    default_handlers,
    envelopes,
    handlers,
    lifecycle,
    management,
    metrics,
    public_handlers,
    replies,
    requests,
    routes,
    running,
    statements,
    streams,
    tokens,
)

SCENARIOS: list[Scenario] = [
    *requests.SCENARIOS,
    *replies.SCENARIOS,
    *routes.SCENARIOS,
    *envelopes.SCENARIOS,
    *streams.SCENARIOS,
    *running.SCENARIOS,
    *handlers.SCENARIOS,
    *default_handlers.SCENARIOS,
    *public_handlers.SCENARIOS,
    *management.SCENARIOS,
    *lifecycle.SCENARIOS,
    *metrics.SCENARIOS,
    *tokens.SCENARIOS,
    *statements.SCENARIOS,
    *configuration.SCENARIOS,
]
