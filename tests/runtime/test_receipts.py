"""Receipts: what is signed is what is read, by our code and by any that knows JWS."""

import base64
import json
from dataclasses import replace

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import (
    decode_dss_signature,
    encode_dss_signature,
)
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from torchkeep.runtime.claims import ModelClaim
from torchkeep.runtime.identity import AttestedKey, HpkeKey
from torchkeep.runtime.receipts import Answered, Asked, Receipt, ReceiptError, read_receipt
from torchkeep.runtime.sealed_messages import MAX_HEAD_BYTES

KEY = AttestedKey()
RECEIPT = Receipt(
    nonce="fresh-1",
    request_id="a-b-c",
    time_ms=1_790_000_000_000,
    model=ModelClaim("größe", "1.0", b"m" * 32),
    asked=Asked("POST", "/predictions/größe", "a=b", "image/jpeg", b"q" * 32),
    answered=Answered(200, "application/json", b"a" * 32),
)
TEXT = RECEIPT.signed(KEY)


def decoded(part: str) -> bytes:
    return base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))


def encoded(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def test_what_was_signed_is_what_is_read() -> None:
    assert read_receipt(TEXT, KEY.public_key) == RECEIPT


def test_a_query_as_long_as_can_be_sealed_has_a_receipt() -> None:
    receipt = replace(RECEIPT, asked=replace(RECEIPT.asked, query='"' * MAX_HEAD_BYTES))
    assert read_receipt(receipt.signed(KEY), KEY.public_key) == receipt


def test_it_is_a_jws() -> None:
    header, payload, signature = TEXT.split(".")
    assert json.loads(decoded(header)) == {"alg": "ES256", "typ": "torchkeep-receipt-1"}
    raw = decoded(signature)
    r, s = int.from_bytes(raw[:32], "big"), int.from_bytes(raw[32:], "big")
    signed = f"{header}.{payload}".encode()
    public_key = KEY.private_key.public_key()
    public_key.verify(encode_dss_signature(r, s), signed, ec.ECDSA(SHA256()))
    fields = json.loads(decoded(payload))
    assert fields["model"] == {"name": "größe", "version": "1.0", "sha256": (b"m" * 32).hex()}
    assert (fields["nonce"], fields["id"], fields["time"]) == ("fresh-1", "a-b-c", RECEIPT.time_ms)


def test_every_changed_character_is_noticed() -> None:
    for position, character in enumerate(TEXT):
        other = "A" if character != "A" else "B"
        changed = TEXT[:position] + other + TEXT[position + 1 :]
        if position == len(TEXT) - 1 and decoded(changed.split(".")[2]) == decoded(
            TEXT.split(".")[2]
        ):
            continue  # the last character has bits that stand for nothing
        with pytest.raises(ReceiptError):
            read_receipt(changed, KEY.public_key)


@pytest.mark.parametrize("text", ["", ".", "..", "a.b.c", TEXT + ".", TEXT + "=", "x" * 20_000])
def test_what_is_none(text: str) -> None:
    with pytest.raises(ReceiptError):
        read_receipt(text, KEY.public_key)


def test_another_key_has_not_signed_it() -> None:
    with pytest.raises(ReceiptError, match="not signed by this key"):
        read_receipt(TEXT, AttestedKey().public_key)


def test_a_key_of_another_kind() -> None:
    public_key = HpkeKey().private_key.public_key()
    der = public_key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    with pytest.raises(ReceiptError, match="P-256"):
        read_receipt(TEXT, der)


@pytest.mark.parametrize(
    "payload",
    [b"", b"{}", b"[]", b"[" * 10_000, json.dumps({"nonce": 1}).encode()],
)
def test_who_has_the_key_cannot_sign_what_he_likes(payload: bytes) -> None:
    text = f"{TEXT.split('.')[0]}.{encoded(payload)}"
    r, s = _signature(text)
    signed = f"{text}.{encoded(r.to_bytes(32, 'big') + s.to_bytes(32, 'big'))}"
    with pytest.raises(ReceiptError, match="lacks"):
        read_receipt(signed, KEY.public_key)


def test_digests_have_their_length() -> None:
    short = replace(RECEIPT, model=ModelClaim("m", "1.0", b"m")).signed(KEY)
    with pytest.raises(ReceiptError, match="lacks"):
        read_receipt(short, KEY.public_key)


def _signature(text: str) -> tuple[int, int]:
    return decode_dss_signature(KEY.sign(text.encode()))
