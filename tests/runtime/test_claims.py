"""The claims map: one encoding, and nothing else is read."""

import hashlib
from contextlib import suppress
from dataclasses import replace
from typing import Any

import cbor2
import pytest

from torchkeep.runtime.claims import (
    Claims,
    ClaimsError,
    ModelClaim,
    parse_claims,
    report_data,
)

CERTIFICATE = Claims(b"\x11" * 32, b"\x22" * 32, b"\x33" * 32, "tdx")
FULL = replace(
    CERTIFICATE,
    nonce=bytes(range(16)),
    models=(ModelClaim("b", "2.0", b"\x55" * 32), ModelClaim("a", "1.0", b"\x44" * 32)),
)
# docs/attestation.md holds the same two.
CERTIFICATE_BYTES = bytes.fromhex(
    "a4"
    "63746565" "63746478"
    "66636f6e666967" "5820" + "33" * 32
    + "6868706b652d6b6579" "5820" + "22" * 32
    + "6b7075626b65792d68617368" "5824" "82015820" + "11" * 32
)  # fmt: skip
FULL_BYTES = bytes.fromhex(
    "a6"
    "63746565" "63746478"
    "656e6f6e6365" "50000102030405060708090a0b0c0d0e0f"
    "66636f6e666967" "5820" + "33" * 32
    + "666d6f64656c73" "82"
    + "836161" "63312e30" "5820" + "44" * 32
    + "836162" "63322e30" "5820" + "55" * 32
    + "6868706b652d6b6579" "5820" + "22" * 32
    + "6b7075626b65792d68617368" "5824" "82015820" + "11" * 32
)  # fmt: skip


@pytest.mark.parametrize(
    ("claims", "expected"), [(CERTIFICATE, CERTIFICATE_BYTES), (FULL, FULL_BYTES)]
)
def test_claims_have_the_documented_bytes(claims: Claims, expected: bytes) -> None:
    assert claims.encode() == expected
    assert parse_claims(expected).encode() == expected


def test_models_are_sorted_whatever_their_order() -> None:
    assert FULL.models is not None
    assert replace(FULL, models=FULL.models[::-1]).encode() == FULL_BYTES


def test_report_data_is_the_hash_of_the_claims_and_zeros() -> None:
    assert report_data(FULL_BYTES) == hashlib.sha256(FULL_BYTES).digest() + bytes(32)


def changed(**changes: Any) -> bytes:
    claims = cbor2.loads(FULL_BYTES)
    claims.update(changes)
    return cbor2.dumps({k: v for k, v in claims.items() if v is not ...}, canonical=True)


@pytest.mark.parametrize(
    ("buffer", "reason"),
    [
        (b"", "no CBOR"),
        (b"\xff", "no CBOR"),
        (cbor2.dumps([1]), "no CBOR map"),
        (changed(tee=...), "tee"),
        (changed(tee=b"tdx"), "tee"),
        (changed(nonce=b"short"), "nonce"),
        (changed(nonce=b"x" * 65), "nonce"),
        (changed(nonce="x" * 16), "nonce"),
        (changed(config=b"\x33" * 31), "config"),
        (changed(**{"hpke-key": ...}), "hpke-key"),
        (changed(**{"pubkey-hash": b"\x11" * 32}), "pubkey-hash"),
        (changed(**{"pubkey-hash": cbor2.dumps([7, b"\x11" * 48])}), "SHA-256"),
        (changed(**{"pubkey-hash": cbor2.dumps([1, b"\x11" * 31])}), "pubkey-hash"),
        (changed(models={}), "models"),
        (changed(models=None), "models"),
        (changed(models=[["a", "1.0"]]), "models"),
        (changed(models=[["a", "1.0", b"short"]]), "models"),
        (changed(models=[["b", "1.0", bytes(32)], ["a", "1.0", bytes(32)]]), "one way"),
        (changed(more=1), "one way"),
        (FULL_BYTES + b"\0", "one way"),
        (cbor2.dumps(dict(reversed(cbor2.loads(FULL_BYTES).items()))), "one way"),
        (b"\x00" * ((1 << 20) + 1), "more than"),
        (b"\x81" * 5000, "no CBOR"),
    ],
)
def test_anything_else_is_refused(buffer: bytes, reason: str) -> None:
    with pytest.raises(ClaimsError, match=reason):
        parse_claims(buffer)


def test_every_flipped_bit_changes_claims_or_is_refused() -> None:
    for at in range(len(FULL_BYTES) * 8):
        flipped = bytearray(FULL_BYTES)
        flipped[at // 8] ^= 1 << at % 8
        with suppress(ClaimsError):
            assert parse_claims(bytes(flipped)) != parse_claims(FULL_BYTES)
