"""RFC 9180 once more, from its primitives: base mode, X25519, HKDF-SHA256, AES-256-GCM.

With the ephemeral key of the sender for an argument, so that bytes can be compared.
"""

import hashlib
import hmac

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

KEM_SUITE = b"KEM" + (0x20).to_bytes(2, "big")
SUITE = b"HPKE" + b"".join(number.to_bytes(2, "big") for number in (0x20, 1, 2))


def seal(public_key: bytes, ephemeral: X25519PrivateKey, info: bytes, plain: bytes) -> bytes:
    """enc and ciphertext."""
    enc = ephemeral.public_key().public_bytes_raw()
    shared = ephemeral.exchange(X25519PublicKey.from_public_bytes(public_key))
    key, nonce = key_schedule(kem_secret(shared, enc + public_key), info)
    return enc + AESGCM(key).encrypt(nonce, plain, b"")


def open_sealed(private_key: X25519PrivateKey, info: bytes, sealed: bytes) -> bytes:
    enc, ciphertext = sealed[:32], sealed[32:]
    shared = private_key.exchange(X25519PublicKey.from_public_bytes(enc))
    context = enc + private_key.public_key().public_bytes_raw()
    key, nonce = key_schedule(kem_secret(shared, context), info)
    return AESGCM(key).decrypt(nonce, ciphertext, b"")


def kem_secret(shared: bytes, context: bytes) -> bytes:
    secret = labeled_extract(KEM_SUITE, b"", b"eae_prk", shared)
    return labeled_expand(KEM_SUITE, secret, b"shared_secret", context, 32)


def key_schedule(shared_secret: bytes, info: bytes) -> tuple[bytes, bytes]:
    context = b"\0" + labeled_extract(SUITE, b"", b"psk_id_hash", b"")
    context += labeled_extract(SUITE, b"", b"info_hash", info)
    secret = labeled_extract(SUITE, shared_secret, b"secret", b"")
    key = labeled_expand(SUITE, secret, b"key", context, 32)
    return key, labeled_expand(SUITE, secret, b"base_nonce", context, 12)


def labeled_extract(suite: bytes, salt: bytes, label: bytes, material: bytes) -> bytes:
    text = b"HPKE-v1" + suite + label + material
    return hmac.digest(salt or bytes(32), text, hashlib.sha256)


def labeled_expand(suite: bytes, secret: bytes, label: bytes, info: bytes, length: int) -> bytes:
    text = length.to_bytes(2, "big") + b"HPKE-v1" + suite + label + info
    output = block = b""
    counter = 1
    while len(output) < length:
        block = hmac.digest(secret, block + text + bytes([counter]), hashlib.sha256)
        output += block
        counter += 1
    return output[:length]
