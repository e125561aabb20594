"""Evidence from the attestation agent, over real sockets, and from configfs-tsm."""

import asyncio
import base64
import errno
import os
from collections.abc import Iterator
from typing import Any

import pytest
from key_services import Agent, Handler
from unsigned_quote import unsigned_quote

from torchkeep.runtime import evidence as evidence_module
from torchkeep.runtime.errors import EvidenceError
from torchkeep.runtime.evidence import (
    AgentEvidence,
    Evidence,
    KernelEvidence,
    ReportFiles,
    quoted_data,
)
from torchkeep.runtime.fetch import parse_service

HASH = bytes(range(32)).ljust(64, b"\0")  # report data of a claims map
LONG = bytes(range(64))


@pytest.fixture
def agent() -> Iterator[Agent]:
    service = Agent(unsigned_quote)
    with service.listening():
        yield service


def of(agent: Agent) -> AgentEvidence:
    return AgentEvidence(parse_service(agent.address, {"http": 8006}))


def evidence(source: Evidence, report_data: bytes) -> dict[str, Any]:
    return asyncio.run(source.evidence(report_data))


def failure(source: Evidence, report_data: bytes = HASH) -> EvidenceError:
    with pytest.raises(EvidenceError) as caught:
        evidence(source, report_data)
    return caught.value


@pytest.mark.parametrize("data", [HASH, LONG, b"\xff" * 64, bytes(64)])
def test_agent_binds_its_quote_to_what_was_asked(agent: Agent, data: bytes) -> None:
    assert quoted_data(evidence(of(agent), data)) == data
    assert len(agent.requests) == 1


def test_old_agent_gets_the_hash_in_words(agent: Agent) -> None:
    agent.is_old = True
    assert quoted_data(evidence(of(agent), HASH)) == HASH[:32].hex().encode()


def test_old_agent_has_no_room_for_more_than_a_hash(agent: Agent) -> None:
    agent.is_old = True
    error = failure(of(agent), LONG)
    assert "before release 0.21" in str(error)
    assert not error.is_temporary


def test_quote_for_other_data_is_never_taken(agent: Agent) -> None:
    agent.quote = lambda _: unsigned_quote(b"\x01" * 64)
    assert "other data" in str(failure(of(agent)))


def test_agent_without_the_feature_says_how_to_enable_it(agent: Agent) -> None:
    agent.is_attestation_enabled = False
    error = failure(of(agent))
    assert "agent.guest_components_rest_api=all" in str(error)
    assert not error.is_temporary


@pytest.mark.parametrize(
    ("status", "body", "reason", "is_temporary"),
    [
        (500, b"rpc status", "failed with status 500", True),
        (403, b"Forbidden", "failed with status 403", False),
        (200, b"no json", "no JSON object", False),
        (200, b"[]", "no JSON object", False),
        (200, b"{}", "holds no quote", False),
        (200, b'{"quote": 1}', "holds no quote", False),
        (200, b'{"quote": "&"}', "holds no TDX quote", False),
        (200, b'{"quote": ""}', "is empty", False),
        (200, b'{"quote": "BAAA"}', "only 3 bytes", False),
    ],
)
def test_agent_that_answers_nonsense_is_named(
    agent: Agent, status: int, body: bytes, reason: str, is_temporary: bool
) -> None:
    def misbehave(request: Handler) -> bool:
        request.answer(status, body, "application/octet-stream")
        return True

    agent.misbehave = misbehave
    error = failure(of(agent))
    assert reason in str(error)
    assert error.is_temporary is is_temporary


def test_agent_that_is_not_there_may_come(agent: Agent) -> None:
    source = AgentEvidence(parse_service("http://127.0.0.1:1", {"http": 8006}))
    assert failure(source).is_temporary


@pytest.mark.parametrize("has_event_log", [True, False])
def test_event_is_recorded_where_the_agent_has_a_log(agent: Agent, has_event_log: bool) -> None:
    agent.has_event_log = has_event_log
    assert asyncio.run(of(agent).record("load", '{"name":"m"}')) is has_event_log
    expected = {"domain": "torchkeep", "operation": "load", "content": '{"name":"m"}'}
    assert agent.events == ([expected] if has_event_log else [])


class Kernel(ReportFiles):
    """Behaves as configfs-tsm does, kernel documentation in hand."""

    def __init__(self) -> None:
        self.reports: dict[str, dict[str, bytes]] = {}
        self.provider = b"tdx_guest\n"
        self.busy = 0  # how often the host says so
        self.failure: int | None = None
        self.is_silent = False  # no quote generation service: an empty quote, and no error
        self.others_writes = 0

    def make(self, name: str) -> None:
        self.reports[name] = {"generation": b"0\n", "provider": self.provider}

    def remove(self, name: str) -> None:
        del self.reports[name]

    def read(self, name: str, attribute: str) -> bytes:
        report = self.reports[name]
        if attribute != "outblob":
            return report[attribute]
        if self.busy:
            self.busy -= 1
            raise OSError(errno.EBUSY, os.strerror(errno.EBUSY))
        if self.failure:
            raise OSError(self.failure, os.strerror(self.failure))
        return b"" if self.is_silent else unsigned_quote(report["inblob"])

    def write(self, name: str, attribute: str, content: bytes) -> None:
        assert attribute == "inblob"
        assert len(content) == 64
        self.reports[name]["inblob"] = content
        self.reports[name]["generation"] = b"%d\n" % (1 + self.others_writes)


@pytest.fixture
def kernel() -> Iterator[Kernel]:
    kernel = Kernel()
    yield kernel
    assert not kernel.reports, "a report is left behind"


def test_kernel_binds_its_quote_to_what_was_asked(kernel: Kernel) -> None:
    found = evidence(KernelEvidence(kernel), LONG)
    assert quoted_data(found) == LONG
    assert found["cc_eventlog"] is None
    assert base64.b64decode(found["quote"]) == unsigned_quote(LONG)


def test_busy_host_is_asked_again(kernel: Kernel) -> None:
    kernel.busy = 2
    assert quoted_data(evidence(KernelEvidence(kernel), HASH)) == HASH


def test_host_that_stays_busy_fails_for_now(
    kernel: Kernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(evidence_module, "BUSY_PATIENCE_S", 0.1)
    kernel.busy = 1000
    error = failure(KernelEvidence(kernel))
    assert "limits their rate" in str(error)
    assert error.is_temporary


def test_quote_that_is_too_long_is_named(kernel: Kernel) -> None:
    kernel.failure = errno.EFBIG
    error = failure(KernelEvidence(kernel))
    assert "larger than the kernel takes" in str(error)
    assert not error.is_temporary


def test_empty_quote_is_a_failure(kernel: Kernel) -> None:
    kernel.is_silent = True
    assert "quote generation service" in str(failure(KernelEvidence(kernel)))


def test_report_that_somebody_else_wrote_to_is_not_used(kernel: Kernel) -> None:
    kernel.others_writes = 1
    error = failure(KernelEvidence(kernel))
    assert "somebody else" in str(error)
    assert error.is_temporary


def test_report_that_stays_behind_does_not_spoil_its_quote(
    kernel: Kernel, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def remove(name: str) -> None:
        raise OSError(errno.EBUSY, os.strerror(errno.EBUSY))

    monkeypatch.setattr(kernel, "remove", remove)
    assert quoted_data(evidence(KernelEvidence(kernel), HASH)) == HASH
    assert "stays behind" in caplog.text
    kernel.reports.clear()


def test_other_provider_is_named(kernel: Kernel) -> None:
    kernel.provider = b"sev_guest\n"
    assert "sev_guest" in str(failure(KernelEvidence(kernel)))


def test_machine_without_configfs_is_named(tmp_path: Any) -> None:
    source = KernelEvidence(ReportFiles(tmp_path / "missing"))
    assert "Linux 6.7" in str(failure(source))
