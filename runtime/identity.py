"""Who a server is: two keys that are born in its process, and die with it.

Neither is ever written, sent or given to another process of ours. Evidence is bound to both
public keys by the claims (`runtime/claims.py`).
"""

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat


class AttestedKey:
    """The P-256 key that evidence vouches for: of the attested listener, and of receipts."""

    def __init__(self, private_key: ec.EllipticCurvePrivateKey | None = None) -> None:
        """A new key; tests that compare bytes give one."""
        self.private_key = private_key or ec.generate_private_key(ec.SECP256R1())
        self.public_key = self.private_key.public_key().public_bytes(
            Encoding.DER, PublicFormat.SubjectPublicKeyInfo
        )

    def sign(self, data: bytes) -> bytes:
        """ECDSA with SHA-256, in DER."""
        return self.private_key.sign(data, ec.ECDSA(hashes.SHA256()))


class HpkeKey:
    """The X25519 key that sealed requests are encrypted for."""

    def __init__(self, private_key: X25519PrivateKey | None = None) -> None:
        """A new key; tests that compare bytes give one."""
        self.private_key = private_key or X25519PrivateKey.generate()
        self.public_key = self.private_key.public_key().public_bytes_raw()
