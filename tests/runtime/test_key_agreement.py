"""JWE as brokers write it: by the letter of the RFCs, and nothing that only looks like it."""

import json
from typing import Any

import pytest
from key_services import seal_to

from torchkeep.runtime.base64url import decode, encode
from torchkeep.runtime.key_agreement import TeeKey, derive

SECRET = b"a key of 32 bytes, for the tests"


def test_the_key_derivation_of_rfc_7518_appendix_c() -> None:
    secret = bytes.fromhex("9e56d91d817135d372834283bf84269cfb316ea3da806a48f6daa7798cfe90c4")
    assert encode(derive(secret, "A128GCM", b"Alice", b"Bob", 16)) == "VqqN6vgjbSBcIijNcacQGg"


def test_what_is_sealed_to_a_key_opens_with_it_alone() -> None:
    key = TeeKey()
    jwe = seal_to(key.jwk, SECRET)
    assert key.open(jwe) == SECRET
    with pytest.raises(ValueError, match="does not open"):
        TeeKey().open(jwe)


def test_a_public_key_is_a_jwk() -> None:
    jwk = TeeKey().jwk
    assert {**jwk, "x": "", "y": ""} == {
        "kty": "EC",
        "crv": "P-256",
        "alg": "ECDH-ES+A256KW",
        "x": "",
        "y": "",
    }
    assert len(decode(jwk["x"])) == len(decode(jwk["y"])) == 32


def changed(jwe: dict[str, Any], **header: Any) -> dict[str, Any]:
    protected = {**json.loads(decode(jwe["protected"])), **header}
    return {**jwe, "protected": encode(json.dumps(protected).encode())}


OFF_CURVE = {"kty": "EC", "crv": "P-256", "x": encode(bytes(31) + b"\1"), "y": encode(bytes(32))}


@pytest.mark.parametrize(
    ("break_it", "complaint"),
    [
        (lambda jwe: [jwe], "no JWE in JSON"),
        (lambda jwe: {}, "lacks protected"),
        (lambda jwe: {**jwe, "protected": 1}, "lacks protected"),
        (lambda jwe: {**jwe, "protected": encode(b"[1]")}, "no JSON object"),
        (lambda jwe: {**jwe, "protected": encode(b"{")}, "no JSON"),
        (lambda jwe: {**jwe, "protected": "a b"}, "no base64url"),
        (lambda jwe: changed(jwe, alg="dir"), "not encrypted by"),
        (lambda jwe: changed(jwe, alg="none"), "not encrypted by"),
        (lambda jwe: changed(jwe, enc="A128CBC-HS256"), "not encrypted by"),
        (lambda jwe: changed(jwe, epk=None), "not on P-256"),
        (lambda jwe: changed(jwe, crit=["x"]), "nobody here understands"),
        (lambda jwe: changed(jwe, zip="DEF"), "nobody here understands"),
        (lambda jwe: changed(jwe, epk={"kty": "EC", "crv": "P-521"}), "not on P-256"),
        (lambda jwe: changed(jwe, epk={"kty": "EC", "crv": "P-256"}), "lacks x"),
        (lambda jwe: changed(jwe, epk=OFF_CURVE), "no point of P-256"),
        (lambda jwe: changed(jwe, more="x"), "does not open"),
        (lambda jwe: changed(jwe, apu=encode(b"x")), "does not open"),
        (lambda jwe: {**jwe, "iv": encode(bytes(8))}, "wrong length"),
        (lambda jwe: {**jwe, "tag": ""}, "wrong length"),
        (lambda jwe: {**jwe, "tag": encode(bytes(16))}, "does not open"),
        (lambda jwe: {**jwe, "encrypted_key": encode(bytes(40))}, "does not open"),
        (lambda jwe: {**jwe, "encrypted_key": encode(bytes(7))}, "does not open"),
        (lambda jwe: {**jwe, "ciphertext": encode(b"x" + bytes(31))}, "does not open"),
        (lambda jwe: {**jwe, "aad": "eA"}, "does not open"),
    ],
)
def test_what_is_not_right_is_refused(break_it: Any, complaint: str) -> None:
    key = TeeKey()
    with pytest.raises(ValueError, match=complaint):
        key.open(break_it(seal_to(key.jwk, SECRET)))
