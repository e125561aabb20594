"""An attested server's side, as the tests need it: evidence of the simulated TEE, honest or not."""

import base64
import datetime
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from torchkeep.client.policy import MEASUREMENTS, Policy, measured
from torchkeep.runtime import simulated_tee
from torchkeep.runtime.claims import Claims, ModelClaim, report_data
from torchkeep.runtime.quote import parse_quote
from torchkeep.runtime.ratls import make_certificate

NONCE = bytes(range(32))
CONFIG = b"\x33" * 32
MODEL = ModelClaim("echo", "1.0", b"\x44" * 32)


def new_key() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


def spki(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


@dataclass
class AttestedServer:
    """What a server knows of itself; each field may be a lie."""

    key: ec.EllipticCurvePrivateKey = field(default_factory=new_key)
    hpke_key: bytes = b"\x22" * 32
    config: bytes = CONFIG
    models: tuple[ModelClaim, ...] = (MODEL,)
    tee: str = "simulated"
    quoting: Mapping[str, Any] = field(default_factory=dict)  # further arguments of mint_quote

    def claims(self, nonce: bytes | None = None) -> Claims:
        return Claims(
            public_key_hash=hashlib.sha256(spki(self.key)).digest(),
            hpke_key=self.hpke_key,
            config=self.config,
            tee=self.tee,
            nonce=nonce,
            models=None if nonce is None else self.models,
        )

    def quote(self, claims_buffer: bytes) -> bytes:
        return simulated_tee.mint_quote(report_data(claims_buffer), **self.quoting)

    def document(self, nonce: bytes = NONCE, **changes: Any) -> bytes:
        """The answer of `GET /attestation`; `changes` are further or other members of it."""
        claims = self.claims(nonce).encode()
        members = {
            "format": "torchkeep-attestation-1",
            "tee": self.tee,
            "quote": base64.b64encode(self.quote(claims)).decode(),
            "claims": base64.b64encode(claims).decode(),
            "public_key": base64.b64encode(spki(self.key)).decode(),
            **changes,
        }
        return json.dumps(members).encode()

    def certificate(self, now: datetime.datetime | None = None) -> bytes:
        """The certificate of its listener, DER."""
        claims = self.claims().encode()
        now = now or datetime.datetime.now(datetime.UTC)
        return make_certificate(self.key, self.quote(claims), claims, now)


def policy_for(server: AttestedServer, **changes: Any) -> Policy:
    """All that can be asked of this server, and that it may be simulated."""
    report = parse_quote(server.quote(b"")).report
    settings = {
        "measurements": {name: frozenset({measured(report)[name]}) for name in MEASUREMENTS},
        "config": frozenset({server.config}),
        "models": frozenset(server.models),
        "allow_simulated": True,
        **changes,
    }
    return Policy(**settings)
