"""The files of the model's owner: keys that wrap, keys that sign, and the public half of those."""

import base64
import os
import stat
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from torchkeep.modelstore.errors import SealingError
from torchkeep.modelstore.keys import KEY_BYTES, MAX_DELIVERED_BYTES, key_bytes, wipe
from torchkeep.modelstore.trust import parse_owner

PUBLIC_SUFFIX = ".pub"
OWNER_PREFIX = "ed25519:"  # as `trusted_models` has it


def new_key(path: Path) -> None:
    """Write 32 random bytes that only the owner of the file can read."""
    key = bytearray(os.urandom(KEY_BYTES))
    _write_new(path, key, 0o600)
    wipe(key)


def new_signing_key(path: Path) -> Path:
    """Write an Ed25519 key as PEM, and its public half beside it; returns where that is."""
    public = path.with_name(path.name + PUBLIC_SUFFIX)
    key = Ed25519PrivateKey.generate()
    # The public half first: a half that is left alone then is not the secret one.
    _write_new(public, f"{owner_text(key.public_key().public_bytes_raw())}\n".encode(), 0o644)
    try:
        pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        _write_new(path, pem, 0o600)
    except BaseException:
        public.unlink()
        raise
    return public


def read_key(path: Path) -> bytearray:
    """A wrapping key in any of the forms of `key_bytes`, for the caller to wipe."""
    content = bytearray(MAX_DELIVERED_BYTES + 1)
    with path.open("rb", buffering=0) as file:
        length = file.readinto(content) or 0
    try:
        return key_bytes(memoryview(content)[:length].tobytes(), str(path))
    finally:
        wipe(content)


def read_signing_key(path: Path) -> Ed25519PrivateKey:
    if stat.S_IMODE(path.stat().st_mode) & 0o077:
        raise SealingError(f"Others may read {path}: chmod 600 {path}.")
    try:
        key = load_pem_private_key(path.read_bytes(), None)
    except (ValueError, TypeError) as error:
        raise SealingError(f"{path} is no private key in PEM without a password.") from error
    if not isinstance(key, Ed25519PrivateKey):
        raise SealingError(f"{path} is no Ed25519 key: torchkeep keygen --signing makes one.")
    return key


def read_owner(path: Path) -> bytes:
    """The public key of an owner, from the file that `new_signing_key` wrote beside his key."""
    try:
        text = path.read_text("ascii").strip()
        return parse_owner(text.removeprefix(OWNER_PREFIX))
    except ValueError as error:
        raise SealingError(f"{path} is no public key: expected {OWNER_PREFIX}<base64>.") from error


def owner_text(public_key: bytes) -> str:
    return OWNER_PREFIX + base64.b64encode(public_key).decode()


def _write_new(path: Path, content: bytes | bytearray, mode: int) -> None:
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    except FileExistsError as error:
        raise SealingError(f"{path} exists; remove it or choose another name.") from error
    try:
        with open(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(descriptor)
    except BaseException:
        path.unlink()
        raise
