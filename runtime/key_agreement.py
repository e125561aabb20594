"""How a Key Broker Service hands over a secret: JWE, to a key that was made for one release.

RFC 7516 (JSON, flattened) with ECDH-ES+A256KW and A256GCM (RFC 7518, sections 4.6 and 5.3),
and nothing else: an answer that names other algorithms is refused, whatever they are.
"""

import json
from typing import Any

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.concatkdf import ConcatKDFHash
from cryptography.hazmat.primitives.keywrap import InvalidUnwrap, aes_key_unwrap

from torchkeep.runtime.base64url import decode, encode

ALGORITHM = "ECDH-ES+A256KW"
ENCRYPTION = "A256GCM"
COORDINATE_BYTES = 32
IV_BYTES = 12
TAG_BYTES = 16


class TeeKey:
    """A P-256 key that lives for one release of one key, in this process alone."""

    def __init__(self) -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())

    @property
    def jwk(self) -> dict[str, str]:
        """The public half (RFC 7517)."""
        numbers = self._key.public_key().public_numbers()
        x, y = (encode(n.to_bytes(COORDINATE_BYTES, "big")) for n in (numbers.x, numbers.y))
        return {"kty": "EC", "crv": "P-256", "alg": ALGORITHM, "x": x, "y": y}

    def open(self, jwe: Any) -> bytearray:
        """What was sealed to this key; raises ValueError that says what is wrong with `jwe`."""
        if not isinstance(jwe, dict):
            raise ValueError("it is no JWE in JSON")
        protected = _text(jwe, "protected")
        text = decode(protected)
        try:
            header = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise ValueError("its protected header is no JSON") from error
        if not isinstance(header, dict):
            raise ValueError("its protected header is no JSON object")
        if header.get("alg") != ALGORITHM or header.get("enc") != ENCRYPTION:
            raise ValueError(f"it is not encrypted by {ALGORITHM} and {ENCRYPTION}")
        if "crit" in header or "zip" in header:
            raise ValueError("its header asks for what nobody here understands")
        kek = self._agree(header)
        iv, tag = decode(_text(jwe, "iv")), decode(_text(jwe, "tag"))
        if len(iv) != IV_BYTES or len(tag) != TAG_BYTES:
            raise ValueError("its iv or tag has the wrong length")
        sealed = decode(_text(jwe, "ciphertext")) + tag
        associated = protected if "aad" not in jwe else f"{protected}.{_text(jwe, 'aad')}"
        opened = bytearray(len(sealed) - TAG_BYTES)
        try:
            key = aes_key_unwrap(kek, decode(_text(jwe, "encrypted_key")))
            AESGCM(key).decrypt_into(iv, sealed, associated.encode(), opened)
        except (InvalidUnwrap, InvalidTag, ValueError) as error:
            raise ValueError("it does not open with the key it was asked for with") from error
        return opened

    def _agree(self, header: dict[str, Any]) -> bytes:
        """The key that wraps the content key."""
        epk = header.get("epk")
        if not isinstance(epk, dict) or epk.get("kty") != "EC" or epk.get("crv") != "P-256":
            raise ValueError("its ephemeral key is not on P-256")
        x, y = (int.from_bytes(decode(_text(epk, name)), "big") for name in ("x", "y"))
        try:
            theirs = ec.EllipticCurvePublicNumbers(x, y, ec.SECP256R1()).public_key()
        except ValueError as error:
            raise ValueError("its ephemeral key is no point of P-256") from error
        apu, apv = decode(header.get("apu") or ""), decode(header.get("apv") or "")
        return derive(self._key.exchange(ec.ECDH(), theirs), ALGORITHM, apu, apv, 32)


def derive(secret: bytes, algorithm: str, apu: bytes, apv: bytes, length: int) -> bytes:
    """The Concat KDF of RFC 7518, section 4.6.2; the length is in bytes."""
    bits = (8 * length).to_bytes(4, "big")
    info = _counted(algorithm.encode()) + _counted(apu) + _counted(apv) + bits
    return ConcatKDFHash(SHA256(), length, info).derive(secret)


def _counted(data: bytes) -> bytes:
    return len(data).to_bytes(4, "big") + data


def _text(fields: dict[str, Any], name: str) -> str:
    value = fields.get(name)
    if not isinstance(value, str):
        raise ValueError(f"it lacks {name}")
    return value
