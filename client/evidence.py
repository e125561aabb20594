"""What a server shows to be trusted: an attestation document, or its listener's certificate."""

import base64
import binascii
import json
import secrets
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from torchkeep.runtime import base64url
from torchkeep.runtime.claims import DOCUMENT_FORMAT, Claims, ClaimsError, parse_claims
from torchkeep.runtime.quote import Quote, QuoteError, parse_quote
from torchkeep.runtime.ratls import CertificateError, read_certificate

MAX_DOCUMENT_BYTES = 4 << 20  # a quote, claims, and an event log
NONCE_BYTES = 32
ATTESTATION_PATH = "/attestation"


class EvidenceFormatError(ValueError):
    """What was shown cannot be read; the text says why."""


@dataclass(frozen=True, slots=True)
class Shown:
    """Evidence as it was read. Nothing in it is verified."""

    quote: Quote
    claims: Claims
    claims_buffer: bytes
    tee: str  # as the document itself says; a certificate says it in its claims only
    public_key: bytes  # SubjectPublicKeyInfo of the key it is said to be about
    valid: tuple[datetime, datetime] | None = None  # of a certificate, as it says of itself


def new_nonce() -> bytes:
    return secrets.token_bytes(NONCE_BYTES)


def nonce_text(nonce: bytes) -> str:
    """As `GET /attestation?nonce=` takes it: base64url without padding."""
    return base64url.encode(nonce)


def read_document(document: bytes) -> Shown:
    """Raises EvidenceFormatError."""
    if len(document) > MAX_DOCUMENT_BYTES:
        raise EvidenceFormatError(f"the document has more than {MAX_DOCUMENT_BYTES} bytes")
    try:
        found = json.loads(document)
    except (ValueError, RecursionError) as error:
        raise EvidenceFormatError("the document is no JSON") from error
    if not isinstance(found, dict) or found.get("format") != DOCUMENT_FORMAT:
        raise EvidenceFormatError(f"the document's format is not {DOCUMENT_FORMAT}")
    tee = found.get("tee")
    if not isinstance(tee, str):
        raise EvidenceFormatError("the document names no tee")
    public_key = _bytes_of(found, "public_key")
    return _shown(_bytes_of(found, "quote"), _bytes_of(found, "claims"), public_key, tee)


def read_attested_certificate(der: bytes) -> Shown:
    """Raises EvidenceFormatError."""
    try:
        read = read_certificate(der)
    except CertificateError as error:
        raise EvidenceFormatError(str(error)) from error
    shown = _shown(read.quote, read.claims, read.public_key, None)
    return replace(shown, valid=(read.not_before, read.not_after))


def _shown(quote: bytes, claims_buffer: bytes, public_key: bytes, tee: str | None) -> Shown:
    try:
        claims = parse_claims(claims_buffer)
        read = parse_quote(quote)
    except (ClaimsError, QuoteError) as error:
        raise EvidenceFormatError(str(error)) from error
    return Shown(read, claims, claims_buffer, claims.tee if tee is None else tee, public_key)


def _bytes_of(document: dict[str, Any], name: str) -> bytes:
    value = document.get(name)
    try:
        if isinstance(value, str):
            return base64.b64decode(value, validate=True)
    except (binascii.Error, ValueError):
        pass
    raise EvidenceFormatError(f"the document's {name} is no base64")
