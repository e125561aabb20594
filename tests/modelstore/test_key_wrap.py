import secrets

import pytest
from cryptography.hazmat.primitives.keywrap import aes_key_wrap

from torchkeep.modelstore.key_wrap import unwrap_key

RFC_KEK = bytearray(range(32))


def test_the_vector_of_rfc_3394() -> None:
    """Section 4.6: 256 bits of key data with a 256-bit KEK."""
    wrapped = bytes.fromhex(
        "28C9F404C4B810F4CBCCB35CFB87F8263F5786E2D80ED326CBC7F0E71A99F43BFB988B9B7A02DD21"
    )
    key = unwrap_key(RFC_KEK, wrapped)
    assert key is not None
    assert key.hex().upper() == "00112233445566778899AABBCCDDEEFF000102030405060708090A0B0C0D0E0F"


@pytest.mark.parametrize("length", [16, 32, 64])
def test_what_the_library_wraps_is_unwrapped(length: int) -> None:
    for _ in range(20):
        kek, key = secrets.token_bytes(32), secrets.token_bytes(length)
        assert unwrap_key(bytearray(kek), aes_key_wrap(kek, key)) == key


def test_another_key_or_one_bit_opens_nothing() -> None:
    wrapped = aes_key_wrap(bytes(RFC_KEK), bytes(64))
    assert unwrap_key(bytearray(32), wrapped) is None
    for position in range(len(wrapped)):
        flipped = bytearray(wrapped)
        flipped[position] ^= 1 << position % 8
        assert unwrap_key(RFC_KEK, bytes(flipped)) is None
