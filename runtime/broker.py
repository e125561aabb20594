"""Keys from a Key Broker Service of Confidential Containers, by its own protocol.

RCAR, of kbs_attestation_protocol.md in the Trustee project, protocol version 0.4.0: request,
challenge, attestation, response, and then the resource, sealed to a key that the evidence
vouches for. Each release makes a session and a key of its own, and both end with it.
"""

import hashlib
import json
from http.cookies import CookieError, SimpleCookie
from typing import Any

from torchkeep.runtime.canonical_json import canonical_json
from torchkeep.runtime.errors import EvidenceError, KeyReleaseError, ReleaseStep
from torchkeep.runtime.evidence import REPORT_DATA_BYTES, Evidence
from torchkeep.runtime.fetch import Answer, FetchFailed, Service, fetch
from torchkeep.runtime.key_agreement import TeeKey

PROTOCOL_VERSION = "0.4.0"
PREFIX = "/kbs/v0"
SESSION_COOKIE = "kbs-session-id"
HASHES = ("sha384", "sha256", "sha512")  # the first is used where the broker does not choose
NO_DEVICES = "{}"  # evidence of devices beside the CPU's
MAX_NONCE_CHARS = 4096

# The last part of an error's `type` (RFC 7807), and the step that it means.
_REFUSALS: dict[str, ReleaseStep] = {
    "PolicyDeny": "policy denied",
    "PluginInternalError": "resource missing",  # Trustee's 401 where there is no such resource
    "AttestationError": "attestation refused",
    "TokenNotFound": "attestation refused",
    "TokenVerifierError": "attestation refused",
    "InvalidCookie": "attestation refused",
    "ExpiredCookie": "attestation refused",
    "UnauthenticatedCookie": "attestation refused",
}


class BrokerKeys:
    """One broker, and the evidence that it is shown."""

    def __init__(self, service: Service, evidence: Evidence | None) -> None:
        self._service = service
        self._evidence = evidence

    async def delivered(self, path: str) -> bytearray:
        """What the broker keeps as `repository/type/tag`. Raises KeyReleaseError."""
        if self._evidence is None:
            raise KeyReleaseError(
                "attestation refused",
                "This server has no evidence to show: it does not run in a TEE that it knows. "
                "For a trial with the sample TEE: insecure_simulated_tee=true.",
            )
        session = _Session(self._service, self._evidence)
        await session.attest()
        return await session.resource(path)


class _Session:
    def __init__(self, service: Service, evidence: Evidence) -> None:
        self._service = service
        self._evidence = evidence
        self._key = TeeKey()
        self._headers = {"Accept": "application/json", "Content-Type": "application/json"}

    async def attest(self) -> None:
        challenge = await self._auth()
        nonce = challenge.get("nonce")
        if not isinstance(nonce, str) or not nonce.isascii():
            raise self._nonsense("its challenge has no nonce")
        if not 0 < len(nonce) <= MAX_NONCE_CHARS:
            raise self._nonsense("its challenge has no nonce")
        extra = challenge.get("extra-params")
        chosen = extra.get("selected-hash-algorithm") if isinstance(extra, dict) else None
        algorithm = HASHES[0] if chosen is None else str(chosen).lower().replace("-", "")
        if algorithm not in HASHES:
            raise self._nonsense("its challenge selects a hash that nobody offered")
        runtime_data = {"nonce": nonce, "tee-pubkey": self._key.jwk}
        report_data = hash_of(algorithm, {**runtime_data, "additional-evidence": NO_DEVICES})
        try:
            evidence = await self._evidence.evidence(report_data.ljust(REPORT_DATA_BYTES, b"\0"))
        except EvidenceError as error:
            raise KeyReleaseError(
                "attestation refused",
                f"This server got no evidence to show. {error}.",
                is_temporary=error.is_temporary,
            ) from error
        answer = await self._post(
            "attest",
            {
                "runtime-data": runtime_data,
                "tee-evidence": {"primary_evidence": evidence, "additional_evidence": NO_DEVICES},
            },
        )
        if answer.status != 200:
            raise self._refused(answer, "attestation refused")
        token = _json(answer).get("token")
        if not isinstance(token, str) or not token.isascii() or not token.isprintable():
            raise self._nonsense("it attested us without a token")
        self._headers["Authorization"] = f"Bearer {token}"

    async def resource(self, path: str) -> bytearray:
        answer = await self._fetch("GET", f"{PREFIX}/resource/{path}")
        if answer.status in (400, 404):
            raise KeyReleaseError(
                "resource missing", f"Ask the owner to put it into the broker {self._service.url}."
            )
        if answer.status != 200:
            raise self._refused(answer, "policy denied")
        try:
            return self._key.open(_json(answer))
        except ValueError as error:
            raise self._nonsense(f"what it delivered is unusable: {error}") from error

    async def _auth(self) -> dict[str, Any]:
        answer = await self._post(
            "auth",
            {
                "version": PROTOCOL_VERSION,
                "tee": self._evidence.tee,
                "extra-params": {"supported-hash-algorithms": list(HASHES)},
            },
        )
        if answer.status == 404:
            raise KeyReleaseError(
                "not configured", f"{self._service.url} is no Key Broker Service: see key_source."
            )
        if answer.status != 200:
            raise self._refused(answer, "attestation refused")
        try:
            cookies = SimpleCookie("; ".join(answer.headers.get_all("Set-Cookie", [])))
        except CookieError:
            cookies = SimpleCookie()
        if SESSION_COOKIE not in cookies:
            raise self._nonsense("it opened no session")
        self._headers["Cookie"] = f"{SESSION_COOKIE}={cookies[SESSION_COOKIE].coded_value}"
        return _json(answer)

    async def _post(self, step: str, message: dict[str, Any]) -> Answer:
        return await self._fetch("POST", f"{PREFIX}/{step}", json.dumps(message).encode())

    async def _fetch(self, method: str, path: str, body: bytes = b"") -> Answer:
        try:
            return await fetch(self._service, method, path, self._headers, body)
        except FetchFailed as error:
            raise KeyReleaseError(
                "unreachable", f"The broker {self._service.url}: {error}.", is_temporary=True
            ) from error

    def _refused(self, answer: Answer, step: ReleaseStep) -> KeyReleaseError:
        if answer.status in (401, 403):
            kind = str(_json(answer).get("type", "")).rpartition("/")[2]
            step = _REFUSALS.get(kind, step)
            advice = {
                "attestation refused": "It does not accept this server's evidence: compare "
                "its reference values and policies with what runs here.",
                "policy denied": "Its resource policy does not let this server have the key.",
                "resource missing": "It has no such resource, or cannot read it: ask the owner.",
            }[step]
            return KeyReleaseError(step, f"The broker {self._service.url} said so. {advice}")
        return KeyReleaseError(
            "unreachable",
            f"The broker {self._service.url} failed with status {answer.status}.",
            is_temporary=True,
        )

    def _nonsense(self, what: str) -> KeyReleaseError:
        return KeyReleaseError(
            "unreachable",
            f"{self._service.url} does not answer as a Key Broker Service: {what}.",
            is_temporary=True,
        )


def hash_of(algorithm: str, value: Any) -> bytes:
    """The hash of canonical JSON, which is how a broker and its client agree on what was said."""
    return hashlib.new(algorithm, canonical_json(value)).digest()


def _json(answer: Answer) -> dict[str, Any]:
    """The answer's object; an empty one where it is something else."""
    try:
        value = json.loads(answer.body)
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}
