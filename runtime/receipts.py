"""Signed receipts: which model answered which request with which answer, by the attested key.

A receipt is a JWS in compact form (RFC 7515, ES256), so that any library for those can check the
signature. docs/sealed-requests.md says what is in it.
"""

import hashlib
import json
from dataclasses import dataclass
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import (
    decode_dss_signature,
    encode_dss_signature,
)
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import load_der_public_key

from torchkeep.runtime import base64url
from torchkeep.runtime.claims import DIGEST_BYTES, ModelClaim
from torchkeep.runtime.errors import ServingError
from torchkeep.runtime.identity import AttestedKey

HEADER = "x-torchkeep-receipt"  # of requests: a nonce; of answers: the receipt
NONCE_CHARS = range(1, 129)
MAX_RECEIPT_CHARS = 256 << 10  # path and query are in it: sealed, they may have 64 KiB
COORDINATE_BYTES = 32  # of P-256

# Base64url of {"alg":"ES256","typ":"torchkeep-receipt-1"}: there is no other header.
PROTECTED = "eyJhbGciOiJFUzI1NiIsInR5cCI6InRvcmNoa2VlcC1yZWNlaXB0LTEifQ"


class ReceiptError(ServingError):
    """This is no receipt for what it was shown for; the text says why."""


@dataclass(frozen=True, slots=True)
class Asked:
    """The request, as the server understood it: of a sealed one what was sealed.

    `path` is decoded; `query` is as it was sent.
    """

    method: str
    path: str
    query: str
    content_type: str
    sha256: bytes  # of the body


@dataclass(frozen=True, slots=True)
class Answered:
    """The answer, its pieces put together; of a sealed one what was sealed."""

    status: int
    content_type: str
    sha256: bytes  # of the body


@dataclass(frozen=True, slots=True)
class Receipt:
    """What the server signs."""

    nonce: str  # the client's
    request_id: str  # the server's, of its x-request-id header
    time_ms: int  # since 1970, by the server's clock, when the answer was complete
    model: ModelClaim
    asked: Asked
    answered: Answered

    def signed(self, key: AttestedKey) -> str:
        """The value of the header."""
        text = f"{PROTECTED}.{base64url.encode(self._payload())}"
        r, s = decode_dss_signature(key.sign(text.encode()))
        raw = r.to_bytes(COORDINATE_BYTES, "big") + s.to_bytes(COORDINATE_BYTES, "big")
        return f"{text}.{base64url.encode(raw)}"

    def _payload(self) -> bytes:
        asked, answered, model = self.asked, self.answered, self.model
        fields = {
            "nonce": self.nonce,
            "id": self.request_id,
            "time": self.time_ms,
            "model": {
                "name": model.name,
                "version": model.version,
                "sha256": model.digest.hex(),
            },
            "request": {
                "method": asked.method,
                "path": asked.path,
                "query": asked.query,
                "content_type": asked.content_type,
                "sha256": asked.sha256.hex(),
            },
            "answer": {
                "status": answered.status,
                "content_type": answered.content_type,
                "sha256": answered.sha256.hex(),
            },
        }
        return json.dumps(fields, separators=(",", ":")).encode()


def read_receipt(text: str, public_key: bytes) -> Receipt:
    """What the holder of the key signed; `public_key` is its SubjectPublicKeyInfo in DER.

    Raises ReceiptError. The caller compares what it says.
    """
    protected, _, rest = text.partition(".")
    payload, _, signature = rest.partition(".")
    if len(text) > MAX_RECEIPT_CHARS or protected != PROTECTED or not signature:
        raise ReceiptError("This is no receipt.")
    key = load_der_public_key(public_key)
    if not isinstance(key, ec.EllipticCurvePublicKey):
        raise ReceiptError("Receipts are signed by a P-256 key, and this is none.")
    raw = _decoded(signature)
    if len(raw) != 2 * COORDINATE_BYTES:
        raise ReceiptError("The signature of the receipt has the wrong length.")
    r, s = (int.from_bytes(half, "big") for half in (raw[:32], raw[32:]))
    try:
        signed = f"{protected}.{payload}".encode()
        key.verify(encode_dss_signature(r, s), signed, ec.ECDSA(SHA256()))
    except InvalidSignature:
        raise ReceiptError("The receipt is not signed by this key.") from None
    return _receipt(_decoded(payload))


def body_digest(body: bytes | bytearray | memoryview) -> bytes:
    return hashlib.sha256(body).digest()


def _receipt(payload: bytes) -> Receipt:
    try:
        match json.loads(payload):
            case {
                "nonce": str(nonce),
                "id": str(request_id),
                "time": int(time_ms),
                "model": {"name": str(name), "version": str(version), "sha256": model_digest},
                "request": {
                    "method": str(method),
                    "path": str(path),
                    "query": str(query),
                    "content_type": str(asked_type),
                    "sha256": asked_digest,
                },
                "answer": {
                    "status": int(status),
                    "content_type": str(answered_type),
                    "sha256": answered_digest,
                },
            }:
                return Receipt(
                    nonce,
                    request_id,
                    time_ms,
                    ModelClaim(name, version, _digest(model_digest)),
                    Asked(method, path, query, asked_type, _digest(asked_digest)),
                    Answered(status, answered_type, _digest(answered_digest)),
                )
    except (ValueError, RecursionError):
        pass
    raise ReceiptError("The receipt lacks what every receipt has.")


def _digest(text: Any) -> bytes:
    digest = bytes.fromhex(text) if isinstance(text, str) else b""
    if len(digest) != DIGEST_BYTES:
        raise ValueError("no digest")
    return digest


def _decoded(text: str) -> bytes:
    try:
        return base64url.decode(text)
    except ValueError as error:
        raise ReceiptError("The receipt is not in base64url.") from error
