"""Asking a server for evidence, on a connection that carries nothing else, and judging it."""

import asyncio
import random
import ssl
import time
from dataclasses import dataclass
from typing import Any

import httpx

from torchkeep.client.collateral import CollateralSource
from torchkeep.client.errors import Unreachable
from torchkeep.client.evidence import (
    ATTESTATION_PATH,
    MAX_DOCUMENT_BYTES,
    new_nonce,
    nonce_text,
)
from torchkeep.client.pinned_tls import key_of, unpinned_context
from torchkeep.client.policy import Policy
from torchkeep.client.verdict import Verdict
from torchkeep.client.verifier import verify_certificate, verify_document

DEADLINE_S = 60.0  # for all of it; a quote may take seconds, and servers limit their rate
SHORTEST_PAUSE_S = 0.1  # whatever it is asked for: who answers is not known yet
LONGEST_PAUSE_S = 5.0


@dataclass(frozen=True, slots=True)
class Where:
    """A server, and how its TLS is known.

    `proxy_tls` knows a proxy that ends TLS before the server: then it is not the connection that
    is judged, and only what is sealed is safe. The same holds for http.
    """

    url: httpx.URL
    proxy_tls: ssl.SSLContext | None = None

    @property
    def is_attested_tls(self) -> bool:
        return self.url.scheme == "https" and self.proxy_tls is None

    @property
    def attestation_url(self) -> httpx.URL:
        return self.url.copy_with(path=self.url.path.rstrip("/") + ATTESTATION_PATH)

    def client_options(self) -> dict[str, Any]:
        return {
            "verify": self.proxy_tls or unpinned_context(),
            "trust_env": False,
            "timeout": DEADLINE_S,
            "headers": {"Accept-Encoding": "identity"},
        }


@dataclass(frozen=True, slots=True)
class Seen:
    """What a server answered to a nonce, and the certificate of the very connection."""

    nonce: bytes
    document: bytes
    certificate: bytes | None


def judge_seen(
    seen: Seen, where: Where, policy: Policy, source: CollateralSource | None
) -> Verdict:
    """All checks. May block, on a service for collateral."""
    if not where.is_attested_tls:
        return verify_document(
            seen.document, policy, nonce=seen.nonce, tls_key=None, collateral=source
        )
    certificate = seen.certificate or b""
    try:
        tls_key = key_of(certificate)
    except ValueError:
        tls_key = b""
    verdict = verify_document(
        seen.document, policy, nonce=seen.nonce, tls_key=tls_key, collateral=source
    )
    if verdict.holds:
        own = verify_certificate(certificate, policy, collateral=source)
        verdict.check(
            "certificate",
            own.holds,
            "it carries evidence for its own key",
            "; ".join(f"{check.name}: {check.text}" for check in own.failed),
        )
    return verdict


def ask(where: Where) -> Seen:
    """Raises Unreachable."""
    question = _Question(where)
    with httpx.Client(**where.client_options()) as http:
        while True:
            try:
                with http.stream("GET", where.attestation_url, params=question.params) as answer:
                    question.began(answer)
                    for piece in answer.iter_raw():
                        question.received(piece)
            except httpx.HTTPError as error:
                raise question.failed(error) from error
            if (pause_s := question.pause_s()) is None:
                return question.seen()
            time.sleep(pause_s)


async def ask_async(where: Where) -> Seen:
    """The same, in an event loop of asyncio."""
    question = _Question(where)
    async with httpx.AsyncClient(**where.client_options()) as http:
        while True:
            try:
                async with http.stream(
                    "GET", where.attestation_url, params=question.params
                ) as answer:
                    question.began(answer)
                    async for piece in answer.aiter_raw():
                        question.received(piece)
            except httpx.HTTPError as error:
                raise question.failed(error) from error
            if (pause_s := question.pause_s()) is None:
                return question.seen()
            await asyncio.sleep(pause_s)


class _Question:
    """One nonce and what came of it, whichever kind of client carries it."""

    def __init__(self, where: Where) -> None:
        self._url = where.attestation_url
        self._nonce = new_nonce()
        self._deadline = time.monotonic() + DEADLINE_S
        self._answer: httpx.Response | None = None
        self._certificate: bytes | None = None
        self._document = bytearray()
        self.params = {"nonce": nonce_text(self._nonce)}

    def began(self, answer: httpx.Response) -> None:
        """The certificate is that of the connection that brought this answer."""
        self._answer = answer
        self._document.clear()
        tls = answer.extensions["network_stream"].get_extra_info("ssl_object")
        self._certificate = None if tls is None else tls.getpeercert(True)

    def received(self, piece: bytes) -> None:
        self._document += piece
        if len(self._document) > MAX_DOCUMENT_BYTES:
            raise Unreachable(f"{self._url}: it answers more than {MAX_DOCUMENT_BYTES} bytes")
        if time.monotonic() > self._deadline:
            raise Unreachable(f"{self._url}: its answer takes more than {DEADLINE_S:.0f} s")

    def pause_s(self) -> float | None:
        """How long to wait before asking again; None if the answer is there."""
        assert self._answer is not None, "`began` comes first"
        status = self._answer.status_code
        if status == 200:
            return None
        after = self._answer.headers.get("retry-after", "")
        if status == 503 and after.isascii() and after.isdigit():
            pause_s = min(max(float(after), SHORTEST_PAUSE_S), LONGEST_PAUSE_S)
            # Servers refill their rate in equal steps: in step with them, others are always first.
            pause_s *= random.uniform(1.0, 1.5)
            if time.monotonic() + pause_s < self._deadline:
                return pause_s
        if status == 404:
            raise Unreachable(f"{self._url}: it has no evidence to show (status 404)")
        raise Unreachable(f"{self._url}: it answers with status {status}, and no evidence")

    def failed(self, error: httpx.HTTPError) -> Unreachable:
        return Unreachable(f"{self._url}: {error or type(error).__name__}")

    def seen(self) -> Seen:
        return Seen(self._nonce, bytes(self._document), self._certificate)
