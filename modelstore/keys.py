"""The keys of sealed archives: where the store asks for them, and the forms they come in.

A key that wraps data keys (a KEK) is 32 bytes. Whoever holds one keeps it in a `bytearray`, so
that it can be overwritten, and overwrites it with `wipe` as soon as the data key is unwrapped.
"""

import base64
import binascii
import json
import re
from typing import Any, Protocol

from torchkeep.modelstore.errors import KeyUnavailable

KEY_BYTES = 32
EXPECTED_FORMS = "Expected 32 bytes, their base64 or hexadecimal text, or a JWK of type oct."
MAX_DELIVERED_BYTES = 4096  # far above a JWK with every optional member

_HEX = re.compile(rb"[0-9A-Fa-f]{64}")
_BASE64 = re.compile(rb"[A-Za-z0-9+/_-]{43}=?")


class KeySource(Protocol):
    """Whoever can tell a key by its id, such as `kbs:///repository/type/tag`."""

    async def key_for(self, key_id: str) -> bytearray:
        """The 32 bytes of the key; the caller wipes them. Raises KeyUnavailable."""
        ...


def key_bytes(delivered: bytes | bytearray, key_id: str = "") -> bytearray:
    """The key in what a source delivered; `key_id` is for the error alone.

    32 bytes are the key itself, whatever they look like.
    """
    if len(delivered) == KEY_BYTES:
        return bytearray(delivered)
    if len(delivered) <= MAX_DELIVERED_BYTES:
        text = bytes(delivered).strip()
        found = _from_jwk(text) if text.startswith(b"{") else _from_text(text)
        if found is not None:
            return found
    raise KeyUnavailable(key_id, "wrong key", EXPECTED_FORMS)


def wipe(secret: bytearray) -> None:
    """Overwrite a key where it lies."""
    secret[:] = bytes(len(secret))


def _from_text(text: bytes) -> bytearray | None:
    if _HEX.fullmatch(text):
        return bytearray(binascii.unhexlify(text))
    if not _BASE64.fullmatch(text):
        return None
    standard = text.rstrip(b"=").replace(b"-", b"+").replace(b"_", b"/") + b"="
    return bytearray(base64.b64decode(standard, validate=True))


def _from_jwk(text: bytes) -> bytearray | None:
    try:
        jwk: Any = json.loads(text)
    except (ValueError, RecursionError):
        return None
    if not isinstance(jwk, dict) or jwk.get("kty") != "oct":
        return None
    key = jwk.get("k")
    if not isinstance(key, str) or not key.isascii() or not _BASE64.fullmatch(key.encode()):
        return None
    return _from_text(key.encode())
