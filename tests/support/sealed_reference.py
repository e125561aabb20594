"""A second implementation of docs/sealed-archive-format.md, written from its text alone.

It shares no line with `torchkeep.modelstore`, holds everything in memory, and believes its caller.
"""

import hashlib
import hmac
import json
from collections.abc import Mapping

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.keywrap import aes_key_unwrap, aes_key_wrap


def seal(
    fields: Mapping[str, object],
    plaintext: bytes,
    kek: bytes,
    data_keys: bytes,
    signing_key: bytes | None = None,
) -> bytes:
    """A sealed archive with these header fields; only `wrapped_key` and `owner` are computed."""
    fields = {**fields, "wrapped_key": aes_key_wrap(kek, data_keys).hex()}
    signer = Ed25519PrivateKey.from_private_bytes(signing_key) if signing_key else None
    if signer:
        fields["owner"] = signer.public_key().public_bytes_raw().hex()
    header = json.dumps(fields, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
    sealed = b"\x89TKSEAL\n" + len(header).to_bytes(4, "big") + header
    if signer:
        sealed += signer.sign(sealed)
    sealed += hmac.digest(data_keys[32:], sealed, "sha256")
    size = int(str(fields["chunk_size"]))
    chunks = [plaintext[at : at + size] for at in range(0, len(plaintext), size)] or [b""]
    for number, chunk in enumerate(chunks):
        nonce = bytes.fromhex(str(fields["nonce_prefix"])) + number.to_bytes(4, "big")
        nonce += bytes([number == len(chunks) - 1])
        cipher = AESGCM(data_keys[:32])
        sealed += cipher.encrypt(nonce, chunk, hashlib.sha256(header).digest())
    return sealed


def open_sealed(sealed: bytes, kek: bytes) -> bytes:
    """The contents of a sealed archive that nobody changed; raises anything otherwise."""
    length = int.from_bytes(sealed[8:12], "big")
    header = sealed[12 : 12 + length]
    fields = json.loads(header)
    data_keys = aes_key_unwrap(kek, bytes.fromhex(fields["wrapped_key"]))
    at = 12 + length + (64 if "owner" in fields else 0)
    assert sealed[at : at + 32] == hmac.digest(data_keys[32:], sealed[:at], "sha256")
    at += 32
    contents, number = b"", 0
    while at < len(sealed):
        chunk = sealed[at : at + fields["chunk_size"] + 16]
        at += len(chunk)
        nonce = bytes.fromhex(fields["nonce_prefix"]) + number.to_bytes(4, "big")
        nonce += bytes([at == len(sealed)])
        cipher = AESGCM(data_keys[:32])
        contents += cipher.decrypt(nonce, chunk, hashlib.sha256(header).digest())
        number += 1
    assert hashlib.sha256(contents).hexdigest() == fields["plaintext_sha256"]
    return contents
