"""Evidence: what a TEE says about itself, to clients and to whoever releases a key.

`Evidence` is the seam. Two sources are real: the attestation agent of Confidential Containers,
and the kernel of a machine that is itself a trusted domain. Two prove nothing, and exist to try
everything else with: the sample TEE of Confidential Containers, for brokers, and a simulated one,
for clients. Both refuse them unless told otherwise.
"""

import asyncio
import base64
import binascii
import errno
import json
import logging
import secrets
import time
from pathlib import Path
from typing import Any, Protocol

from torchkeep.runtime import base64url
from torchkeep.runtime.errors import ConfigError, EvidenceError
from torchkeep.runtime.fetch import Answer, FetchFailed, Service, fetch, parse_service
from torchkeep.runtime.quote import MAX_QUOTE_BYTES, Quote, QuoteError, parse_quote
from torchkeep.runtime.simulated_tee import mint_quote

log = logging.getLogger("torchkeep.runtime")

AGENT = "http://127.0.0.1:8006"  # where Confidential Containers has it in every pod
EXPECTED = "agent, agent:http://127.0.0.1:8006 or tsm"
TSM_REPORTS = Path("/sys/kernel/config/tsm/report")
REPORT_DATA_BYTES = 64
BUSY_PATIENCE_S = 10.0  # hosts limit how often they make quotes


class Evidence(Protocol):
    """A TEE that can vouch for data: 64 bytes that its evidence is bound to."""

    tee: str  # the name that Key Broker Services know it by

    async def evidence(self, report_data: bytes) -> dict[str, Any]:
        """Evidence in the form of the Confidential Containers attestation agent.

        Raises EvidenceError.
        """
        ...


class SampleEvidence:
    """SIMULATED: the `sample` attester of Confidential Containers. It protects nothing."""

    tee = "sample"

    async def evidence(self, report_data: bytes) -> dict[str, Any]:
        return {"svn": "1", "report_data": base64.b64encode(report_data).decode()}


class AgentEvidence:
    """TDX quotes from the attestation agent in a pod, by its REST server (api-server-rest)."""

    tee = "tdx"

    def __init__(self, service: Service) -> None:
        self.service = service

    async def evidence(self, report_data: bytes) -> dict[str, Any]:
        encoded = base64url.encode(report_data)
        found = await self._fetch(f"runtime_data={encoded}&encoding=base64")
        if quoted_data(found) == report_data:
            return found
        # Before release 0.21 the agent took the text itself for the data, which then has
        # room for a hash of 32 bytes in hexadecimal form, and for nothing longer.
        short = in_words(report_data)
        if short is None:
            raise self._failed(
                "it binds its quotes to other data than it was asked to, as those before release "
                "0.21 do: update the guest components, or use key_source=cdh"
            )
        found = await self._fetch(f"runtime_data={short.decode()}")
        if quoted_data(found) != short:
            raise self._failed("it binds its quotes to other data than it was asked to")
        return found

    async def record(self, operation: str, content: str) -> bool:
        """Extend the runtime measurement with an event; False where the agent has no log.

        Raises EvidenceError where the agent cannot be reached, or fails.
        """
        event = {"domain": "torchkeep", "operation": operation, "content": content}
        answer = await self._ask(
            "POST", "/aa/aael", json.dumps(event).encode(), {"Content-Type": "application/json"}
        )
        if answer.status >= 500:
            raise self._failure(answer.status)
        said = _json(answer)
        return answer.status == 200 and isinstance(said, dict) and said.get("success") == "true"

    async def _fetch(self, query: str) -> dict[str, Any]:
        answer = await self._ask("GET", f"/aa/evidence?{query}")
        if answer.status == 404:
            raise self._failed(
                "it gives no evidence: set agent.guest_components_rest_api=all in the kernel_params"
                " annotation of the pod"
            )
        if answer.status != 200:
            raise self._failure(answer.status)
        found = _json(answer)
        if not isinstance(found, dict):
            raise self._failed("its evidence is no JSON object")
        return found

    async def _ask(
        self, method: str, path: str, body: bytes = b"", headers: dict[str, str] | None = None
    ) -> Answer:
        try:
            return await fetch(self.service, method, path, headers or {}, body)
        except FetchFailed as error:
            raise EvidenceError(
                f"The attestation agent {self.service.url}: {error}", is_temporary=True
            ) from error

    def _failure(self, status: int) -> EvidenceError:
        return EvidenceError(
            f"The attestation agent {self.service.url} failed with status {status}",
            is_temporary=status >= 500,
        )

    def _failed(self, what: str) -> EvidenceError:
        return EvidenceError(f"The attestation agent {self.service.url}: {what}")


class SimulatedEvidence:
    """SIMULATED: well-formed quotes of a TEE that everybody can be. They prove nothing."""

    tee = "tdx"

    async def evidence(self, report_data: bytes) -> dict[str, Any]:
        quote = await asyncio.to_thread(mint_quote, report_data)
        return {"cc_eventlog": None, "quote": base64.b64encode(quote).decode()}


class ReportFiles:
    """configfs-tsm as the kernel offers it (Documentation/ABI/testing/configfs-tsm-report)."""

    def __init__(self, root: Path = TSM_REPORTS) -> None:
        self._root = root

    def make(self, name: str) -> None:
        (self._root / name).mkdir()

    def remove(self, name: str) -> None:
        (self._root / name).rmdir()

    def read(self, name: str, attribute: str) -> bytes:
        return (self._root / name / attribute).read_bytes()

    def write(self, name: str, attribute: str, content: bytes) -> None:
        # One write call: the kernel takes each for a request of its own.
        with (self._root / name / attribute).open("wb", buffering=0) as file:
            file.write(content)


class KernelEvidence:
    """TDX quotes from the kernel of a trusted domain (Linux 6.7), which takes root."""

    tee = "tdx"

    def __init__(self, files: ReportFiles | None = None) -> None:
        self._files = files or ReportFiles()

    async def evidence(self, report_data: bytes) -> dict[str, Any]:
        quote = await asyncio.to_thread(self._quote, report_data)
        found = {"cc_eventlog": None, "quote": base64.b64encode(quote).decode()}
        if quoted_data(found) != report_data:
            raise EvidenceError("configfs-tsm: the quote is bound to other data than was asked for")
        return found

    def _quote(self, report_data: bytes) -> bytes:
        name = f"torchkeep-{secrets.token_hex(8)}"
        try:
            self._files.make(name)
        except OSError as error:
            raise EvidenceError(
                f"configfs-tsm: {TSM_REPORTS}: {error.strerror}: it takes Linux 6.7 in a TDX "
                "domain, configfs mounted, and root"
            ) from error
        try:
            return self._report(name, report_data)
        except OSError as error:
            raise EvidenceError(
                f"configfs-tsm: {_REASONS.get(error.errno or 0, error.strerror)}",
                is_temporary=error.errno == errno.EBUSY,
            ) from error
        finally:
            self._remove(name)

    def _remove(self, name: str) -> None:
        try:
            self._files.remove(name)
        except OSError as error:
            # What was read stays true; whoever waits for it could do nothing about this.
            log.warning("configfs-tsm: %s stays behind: %s", TSM_REPORTS / name, error.strerror)

    def _report(self, name: str, report_data: bytes) -> bytes:
        provider = self._files.read(name, "provider").decode("ascii", "replace").strip()
        if provider != "tdx_guest":
            raise EvidenceError(f"configfs-tsm: its provider is {provider}, not tdx_guest")
        self._files.write(name, "inblob", report_data)
        quote = self._patiently_read(name)
        # It counts writes: another one than ours would have changed what is vouched for.
        generation = self._files.read(name, "generation").strip()
        if generation != b"1":
            raise EvidenceError(
                "configfs-tsm: somebody else wrote to our report", is_temporary=True
            )
        if not quote:
            raise EvidenceError(
                "configfs-tsm: the quote is empty: the host's quote generation service is missing "
                "or too old"
            )
        return quote

    def _patiently_read(self, name: str) -> bytes:
        deadline, pause_s = time.monotonic() + BUSY_PATIENCE_S, 0.05
        while True:
            try:
                return self._files.read(name, "outblob")
            except OSError as error:
                if error.errno != errno.EBUSY or time.monotonic() + pause_s > deadline:
                    raise
            time.sleep(pause_s)
            pause_s *= 2


_REASONS = {
    errno.EBUSY: "the host makes no more quotes for now: it limits their rate",
    errno.EFBIG: "the quote is larger than the kernel takes",
}


def evidence_source(setting: str | None) -> Evidence | None:
    """The source that `evidence` in config.properties names. Raises ConfigError."""
    kind, _, where = (setting or "").partition(":")
    if setting is None:
        return None
    if setting == "tsm":
        return KernelEvidence()
    try:
        if kind != "agent":
            raise ValueError(f"{kind} is none")
        return AgentEvidence(agent_service(where or AGENT))
    except ValueError as error:
        raise ConfigError(f"evidence={setting}: {error}; expected {EXPECTED}") from error


def agent_service(url: str) -> Service:
    """The attestation agent's address; raises ValueError."""
    service = parse_service(url, {"http": 8006})
    if not service.is_on_this_machine:
        raise ValueError(f"{service.host} is not this machine, whose evidence it should be")
    return service


def quote_of(evidence: dict[str, Any]) -> Quote:
    """The quote inside evidence of TDX. Raises EvidenceError."""
    encoded = evidence.get("quote")
    if not isinstance(encoded, str) or len(encoded) > 2 * MAX_QUOTE_BYTES:
        raise EvidenceError("the evidence holds no quote")
    try:
        return parse_quote(base64.b64decode(encoded, validate=True))
    except (binascii.Error, QuoteError) as error:
        raise EvidenceError(f"the evidence holds no TDX quote: {error}") from error


def quoted_data(evidence: dict[str, Any]) -> bytes:
    """The data that evidence of TDX is bound to. Raises EvidenceError."""
    return quote_of(evidence).report.report_data


def in_words(report_data: bytes) -> bytes | None:
    """Report data that is a hash of 32 bytes, as 64 hexadecimal digits; None for any other."""
    digest, rest = report_data[:32], report_data[32:]
    return None if any(rest) else digest.hex().encode()


def _json(answer: Answer) -> Any:
    try:
        return json.loads(answer.body)
    except (ValueError, RecursionError):
        return None
