"""What a server claims about itself, in the one form that its evidence is bound to.

The claims map of the CCC Interoperable RA-TLS draft, with claims of our own beside its two. The
first 32 bytes of a quote's report data are the SHA-256 of its encoding, the rest are zero.
docs/attestation.md fixes the bytes, with test vectors.

Encoding: deterministic CBOR (RFC 8949, section 4.2.1). What is encoded in another way is refused,
so that a claim has one hash only.
"""

import hashlib
from dataclasses import dataclass
from typing import Any

import cbor2

DIGEST_BYTES = 32  # SHA-256, in all claims
HPKE_KEY_BYTES = 32  # X25519
REPORT_DATA_BYTES = 64
NONCE_BYTES = range(16, 65)
MAX_CLAIMS_BYTES = 1 << 20
DOCUMENT_FORMAT = "torchkeep-attestation-1"  # of what `GET /attestation` answers

SHA_256 = 1  # in the IANA registry "Named Information Hash Algorithm"


class ClaimsError(ValueError):
    """What was given is no claims map as this module writes it; the text says why."""


@dataclass(frozen=True, slots=True, order=True)
class ModelClaim:
    """One model that is served; `digest` is the SHA-256 of its plaintext archive."""

    name: str
    version: str
    digest: bytes


@dataclass(frozen=True, slots=True)
class Claims:
    """The claims map.

    `nonce` and `models` are None in a certificate, which outlives both.
    """

    public_key_hash: bytes  # SHA-256 of the SubjectPublicKeyInfo (DER) of the attested key
    hpke_key: bytes  # X25519 public key for sealed requests
    config: bytes  # SHA-256 of the effective configuration and the active sandbox layers
    tee: str  # "tdx", or "simulated", which proves nothing
    nonce: bytes | None = None
    models: tuple[ModelClaim, ...] | None = None

    def encode(self) -> bytes:
        """The claims buffer."""
        claims: dict[str, Any] = {
            "pubkey-hash": cbor2.dumps([SHA_256, self.public_key_hash]),
            "hpke-key": self.hpke_key,
            "config": self.config,
            "tee": self.tee,
        }
        if self.nonce is not None:
            claims["nonce"] = self.nonce
        if self.models is not None:
            claims["models"] = [[m.name, m.version, m.digest] for m in sorted(self.models)]
        # All keys are shorter than 24 bytes: there, cbor2's order (RFC 7049) is RFC 8949's.
        return cbor2.dumps(claims, canonical=True)


def report_data(claims_buffer: bytes) -> bytes:
    """The 64 bytes that a quote carries for these claims."""
    return hashlib.sha256(claims_buffer).digest().ljust(REPORT_DATA_BYTES, b"\0")


def parse_claims(buffer: bytes) -> Claims:
    """Raises ClaimsError, for whatever `Claims.encode` would not have written too."""
    if len(buffer) > MAX_CLAIMS_BYTES:
        raise ClaimsError(f"the claims have more than {MAX_CLAIMS_BYTES} bytes")
    try:
        found = cbor2.loads(buffer)
    except (cbor2.CBORDecodeError, ValueError, RecursionError) as error:
        raise ClaimsError("the claims are no CBOR") from error
    if not isinstance(found, dict):
        raise ClaimsError("the claims are no CBOR map")
    tee = found.get("tee")
    if not isinstance(tee, str):
        raise ClaimsError("the claims name no tee")
    nonce = found.get("nonce")
    if nonce is not None and (not isinstance(nonce, bytes) or len(nonce) not in NONCE_BYTES):
        raise ClaimsError("the claim nonce is not 16 to 64 bytes")
    claims = Claims(
        public_key_hash=_public_key_hash(found.get("pubkey-hash")),
        hpke_key=_bytes_of("hpke-key", found.get("hpke-key"), HPKE_KEY_BYTES),
        config=_bytes_of("config", found.get("config"), DIGEST_BYTES),
        tee=tee,
        nonce=nonce,
        models=None if "models" not in found else _models(found["models"]),
    )
    if claims.encode() != buffer:
        raise ClaimsError("the claims are not encoded in the one way that is allowed")
    return claims


def _public_key_hash(value: Any) -> bytes:
    try:
        algorithm, digest = cbor2.loads(value)
    except (cbor2.CBORDecodeError, TypeError, ValueError, RecursionError) as error:
        raise ClaimsError("the claim pubkey-hash is no [algorithm, hash]") from error
    if algorithm != SHA_256:
        raise ClaimsError(f"the claim pubkey-hash is not by SHA-256 (algorithm {SHA_256})")
    return _bytes_of("pubkey-hash", digest, DIGEST_BYTES)


def _models(value: Any) -> tuple[ModelClaim, ...]:
    if not isinstance(value, list):
        raise ClaimsError("the claim models is no list")
    models = []
    for entry in value:
        match entry:
            case [str(name), str(version), bytes(digest)] if len(digest) == DIGEST_BYTES:
                models.append(ModelClaim(name, version, digest))
            case _:
                raise ClaimsError("the claim models holds something else than name, version, hash")
    return tuple(models)


def _bytes_of(name: str, value: Any, length: int) -> bytes:
    if not isinstance(value, bytes) or len(value) != length:
        raise ClaimsError(f"the claim {name} is not {length} bytes")
    return value
