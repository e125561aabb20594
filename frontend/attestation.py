"""GET /attestation: fresh evidence, bound to a client's nonce and to what is served.

docs/attestation.md fixes the document and the claims. A quote takes the machine long and its host
may refuse to make many, so they are made one at a time and at a bounded rate, off the event loop;
predictions notice nothing.
"""

import asyncio
import base64
import datetime
import hashlib
import logging
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from torchkeep.frontend.call import Call
from torchkeep.frontend.errors import (
    BadRequest,
    InternalServerError,
    MethodNotAllowed,
    ServiceUnavailable,
)
from torchkeep.frontend.responses import Reply, error_reply, json_reply
from torchkeep.runtime import base64url
from torchkeep.runtime.claims import DOCUMENT_FORMAT, NONCE_BYTES, Claims, ModelClaim, report_data
from torchkeep.runtime.errors import EvidenceError
from torchkeep.runtime.evidence import Evidence, quote_of
from torchkeep.runtime.identity import AttestedKey
from torchkeep.runtime.ratls import make_certificate

log = logging.getLogger("torchkeep.frontend")

QUOTES_PER_S = 4.0
MAX_PEERS = 4096  # addresses that are told apart
BURST = 8  # quotes that may be asked for, or waited for, at once


class TooManyQuotes(Exception):
    """More evidence is asked for than is made; `retry_after_s` is when to ask again."""

    def __init__(self, retry_after_s: int) -> None:
        super().__init__("More evidence is asked for than this machine makes: ask again later.")
        self.retry_after_s = retry_after_s


@dataclass(frozen=True, slots=True)
class ServerIdentity:
    """What evidence is bound to, beside nonce and models."""

    key: AttestedKey
    hpke_key: bytes  # X25519, public
    config: bytes  # digest
    tee: str  # as the claims name it: "tdx" or "simulated"


class Attestor:
    """Makes evidence, for whoever asks and for the certificate of the attested listener."""

    def __init__(
        self,
        evidence: Evidence,
        identity: ServerIdentity,
        models: Callable[[], list[ModelClaim]],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._evidence = evidence
        self._identity = identity
        self._models = models
        self._turn = asyncio.Lock()
        self._clock = clock
        self._all = _Bucket(QUOTES_PER_S, BURST, clock())
        self._peers: OrderedDict[str, _Bucket] = OrderedDict()
        self._waiting = 0

    async def document(self, nonce: bytes, peer: str = "") -> dict[str, Any]:
        """The answer to a client at the address `peer`, if it has one.

        Raises TooManyQuotes and EvidenceError.
        """
        self._spend_credit(peer)
        self._waiting += 1
        try:
            buffer, evidence = await self._attest(nonce)
        finally:
            self._waiting -= 1
        document = {
            "format": DOCUMENT_FORMAT,
            "tee": self._identity.tee,
            "quote": _text(quote_of(evidence).raw),
            "claims": _text(buffer),
            "public_key": _text(self._identity.key.public_key),
        }
        if isinstance(evidence.get("cc_eventlog"), str):
            document["event_log"] = evidence["cc_eventlog"]
        return document

    async def certificate(self) -> bytes:
        """A certificate (DER) for the attested key, with fresh evidence. Raises EvidenceError."""
        buffer, evidence = await self._attest(None)
        now = datetime.datetime.now(datetime.UTC)
        key = self._identity.key.private_key
        return make_certificate(key, quote_of(evidence).raw, buffer, now)

    async def _attest(self, nonce: bytes | None) -> tuple[bytes, dict[str, Any]]:
        """The claims buffer, and evidence that is bound to it, when it is our turn."""
        async with self._turn:
            buffer = self._claims(nonce).encode()
            return buffer, await self._evidence.evidence(report_data(buffer))

    def _claims(self, nonce: bytes | None) -> Claims:
        """Without a nonce they are those of a certificate, which outlives the models too."""
        identity = self._identity
        return Claims(
            public_key_hash=hashlib.sha256(identity.key.public_key).digest(),
            hpke_key=identity.hpke_key,
            config=identity.config,
            tee=identity.tee,
            nonce=nonce,
            models=None if nonce is None else tuple(self._models()),
        )

    def _spend_credit(self, peer: str) -> None:
        """No address has more than half of all quotes, so that nobody is kept from his."""
        now = self._clock()
        if self._waiting >= BURST:
            raise TooManyQuotes(1)
        if peer:
            own = self._peers.pop(peer, None) or _Bucket(QUOTES_PER_S / 2, BURST // 2, now)
            self._peers[peer] = own
            if len(self._peers) > MAX_PEERS:
                self._peers.popitem(last=False)
            own.spend(now)
        self._all.spend(now)


class _Bucket:
    """Quotes that may be asked for: so many at once, and so many more each second."""

    def __init__(self, rate: float, burst: int, now: float) -> None:
        self._rate = rate
        self._burst = float(burst)
        self._credit = self._burst
        self._credited_at = now

    def spend(self, now: float) -> None:
        """Raises TooManyQuotes."""
        earned = (now - self._credited_at) * self._rate
        self._credit, self._credited_at = min(self._burst, self._credit + earned), now
        if self._credit < 1:
            raise TooManyQuotes(1 + int((1 - self._credit) / self._rate))
        self._credit -= 1


class Attestation:
    """The route, on the ports where predictions are asked for. Who asks needs no key."""

    def __init__(self, attestor: Attestor) -> None:
        self._attestor = attestor

    def route(self, call: Call) -> Awaitable[Reply] | None:
        """GET /attestation?nonce=..."""
        if call.segments != ["attestation"]:
            return None
        if call.method != "GET":
            raise MethodNotAllowed
        return self._attest(call)

    async def _attest(self, call: Call) -> Reply:
        nonce = _nonce(call.query.get("nonce", ""))
        try:
            return json_reply(await self._attestor.document(nonce, call.peer))
        except TooManyQuotes as error:
            return _later(ServiceUnavailable(str(error)), error.retry_after_s)
        except EvidenceError as error:
            log.warning("No evidence for a client: %s", error)
            text = "The TEE of this server gave no evidence; its log says why."
            if error.is_temporary:
                return _later(ServiceUnavailable(text), 1)
            return error_reply(InternalServerError(text))


def _later(error: ServiceUnavailable, seconds: int) -> Reply:
    reply = error_reply(error)
    return Reply(reply.status, reply.body, (*reply.headers, (b"retry-after", b"%d" % seconds)))


def _nonce(text: str) -> bytes:
    try:
        nonce = base64url.decode(text)
    except ValueError:
        nonce = b""
    if len(nonce) not in NONCE_BYTES:
        raise BadRequest(
            f"nonce must be {NONCE_BYTES[0]} to {NONCE_BYTES[-1]} bytes in base64url, "
            "fresh for each request."
        )
    return nonce


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode()
