import base64
import json

import pytest

from torchkeep.modelstore.errors import KeyUnavailable
from torchkeep.modelstore.keys import KEY_BYTES, key_bytes, wipe

KEY = bytes(range(200, 232))  # its base64 has characters of both alphabets
URL_SAFE = base64.urlsafe_b64encode(KEY)


def jwk(**members: object) -> bytes:
    return json.dumps({"kty": "oct", "k": URL_SAFE.rstrip(b"=").decode(), **members}).encode()


@pytest.mark.parametrize(
    "delivered",
    [
        KEY,
        bytearray(KEY),
        base64.b64encode(KEY),
        URL_SAFE,
        URL_SAFE.rstrip(b"="),
        URL_SAFE + b"\n",
        KEY.hex().encode(),
        KEY.hex().upper().encode() + b"\r\n",
        jwk(),
        jwk(alg="A256KW", kid="anything"),
    ],
)
def test_a_key_comes_in_many_forms(delivered: bytes) -> None:
    key = key_bytes(delivered)
    assert key == KEY
    assert type(key) is bytearray


def test_32_bytes_are_the_key_even_if_they_look_like_text() -> None:
    assert key_bytes(b"0" * 32) == b"0" * 32
    assert key_bytes(b"{" + b" " * 30 + b"\n") == b"{" + b" " * 30 + b"\n"


@pytest.mark.parametrize(
    "delivered",
    [
        b"",
        KEY[:16],
        KEY + b"\n",
        KEY + KEY,
        KEY.hex().encode()[:-1],
        base64.b64encode(KEY[:31]),
        base64.b64encode(KEY + b"x"),
        jwk(kty="RSA"),
        jwk(k=None),
        jwk(k="ä" * 43),
        jwk(k=KEY.hex()),
        b"[1]",
        b"{" * 4000,
        b" " * 5000 + URL_SAFE,
    ],
)
def test_anything_else_is_no_key_and_is_not_repeated_in_the_error(delivered: bytes) -> None:
    with pytest.raises(KeyUnavailable) as caught:
        key_bytes(delivered, "kbs:///a/b/c")
    assert caught.value.step == "wrong key"
    assert not caught.value.is_temporary
    assert str(caught.value).startswith("No key kbs:///a/b/c: wrong key. Expected 32 bytes")
    assert not delivered or delivered.decode("latin-1") not in str(caught.value)


def test_a_wiped_key_is_zeros() -> None:
    key = key_bytes(KEY)
    wipe(key)
    assert key == bytes(KEY_BYTES)
