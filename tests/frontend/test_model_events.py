"""Loads of models as runtime measurement events of an agent, over real sockets."""

import asyncio
import json
from collections.abc import Iterator

import pytest
from key_services import Agent, Handler

from torchkeep.frontend.model_events import ModelEvents
from torchkeep.runtime.evidence import AgentEvidence
from torchkeep.runtime.fetch import parse_service


@pytest.fixture
def agent() -> Iterator[Agent]:
    service = Agent(lambda _: b"")
    with service.listening():
        yield service


def events(agent: Agent) -> ModelEvents:
    return ModelEvents(AgentEvidence(parse_service(agent.address, {"http": 8006})))


def test_event_names_model_version_and_digest(agent: Agent) -> None:
    asyncio.run(events(agent).record("m", "1.0", b"\xab" * 32))
    [event] = agent.events
    assert (event["domain"], event["operation"]) == ("torchkeep", "load-model")
    assert event["content"] == '{"digest":"' + "ab" * 32 + '","name":"m","version":"1.0"}'
    assert json.loads(event["content"])["name"] == "m"


def test_agent_without_a_log_is_asked_once(agent: Agent, caplog: pytest.LogCaptureFixture) -> None:
    agent.has_event_log = False
    recorder = events(agent)
    for name in ("a", "b"):
        asyncio.run(recorder.record(name, "1.0", bytes(32)))
    assert len(agent.requests) == 1
    assert caplog.text.count("keeps no runtime measurements") == 1


def test_agent_that_fails_is_asked_again(agent: Agent, caplog: pytest.LogCaptureFixture) -> None:
    def misbehave(request: Handler) -> bool:
        agent.misbehave = None
        request.answer(500, b"rpc status")
        return True

    agent.misbehave = misbehave
    recorder = events(agent)
    for name in ("a", "b"):
        asyncio.run(recorder.record(name, "1.0", bytes(32)))
    assert "the load of model a is not in the runtime measurements" in caplog.text
    assert [json.loads(event["content"])["name"] for event in agent.events] == ["b"]


def test_agent_that_is_away_is_asked_again(agent: Agent, caplog: pytest.LogCaptureFixture) -> None:
    recorder = ModelEvents(AgentEvidence(parse_service("http://127.0.0.1:1", {"http": 8006})))
    for name in ("a", "b"):
        asyncio.run(recorder.record(name, "1.0", bytes(32)))
    assert caplog.text.count("is not in the runtime measurements") == 2
