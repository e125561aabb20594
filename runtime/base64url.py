"""base64url without padding (RFC 7515, section 2), in its one form: nothing else is read."""

import base64
import binascii
from typing import Any


def encode(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def decode(text: Any) -> bytes:
    """Raises ValueError."""
    if not isinstance(text, str) or not text.isascii() or "=" in text:
        raise ValueError("it holds something that is no base64url")
    # Not `urlsafe_b64decode`, which skips what it does not know.
    standard = text.translate(str.maketrans("-_+/", "+/**")) + "=" * (-len(text) % 4)
    try:
        return base64.b64decode(standard, validate=True)
    except binascii.Error as error:
        raise ValueError("it holds something that is no base64url") from error
