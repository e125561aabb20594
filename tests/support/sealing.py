"""Sealed archives for tests: packed, sealed and opened with one key."""

import asyncio
import base64
import io
import json
import secrets
import zipfile
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.keywrap import aes_key_wrap

from torchkeep.modelstore.sealed import SealRequest, seal

KEK = bytes(range(32))
KEY_ID = "kbs:///models/key/m"
HANDLER = "def handle(data, context): return data"
ANSWERER = "def handle(data, context): return data and [b'answer'] * len(data)"


class Keys:
    """A source that knows one key, and remembers what it handed out."""

    def __init__(self, key: bytes = KEK) -> None:
        self.key = key
        self.asked: list[str] = []
        self.given: list[bytearray] = []
        self.was_asked = asyncio.Event()

    async def key_for(self, key_id: str) -> bytearray:
        self.asked.append(key_id)
        self.was_asked.set()
        self.given.append(bytearray(self.key))
        return self.given[-1]


def mar_bytes(
    name: str | None = "m",
    version: str = "1.0",
    files: dict[str, bytes | str] | None = None,
    compression: int = zipfile.ZIP_DEFLATED,
) -> bytes:
    """An archive with a handler and a manifest."""
    buffer = io.BytesIO()
    model = {"modelVersion": version, "handler": "h.py"} | ({"modelName": name} if name else {})
    with zipfile.ZipFile(buffer, "w", compression) as archive_zip:
        for entry, content in {"h.py": HANDLER, **(files or {})}.items():
            archive_zip.writestr(entry, content)
        archive_zip.writestr("MAR-INF/MANIFEST.json", json.dumps({"model": model}))
    return buffer.getvalue()


def write_sealed(
    path: Path,
    plain: bytes,
    name: str = "m",
    version: str = "1.0",
    release: int = 1,
    owner: Ed25519PrivateKey | None = None,
    kek: bytes = KEK,
) -> Path:
    with path.open("wb") as sealed:
        request = SealRequest(name, version, release, KEY_ID, owner)
        seal(io.BytesIO(plain), sealed, bytearray(kek), request)
    return path


def sealed_store(root: Path, kek: bytes) -> Path:
    """A model store with `m.mar`, a sealed model that answers `answer`."""
    root.mkdir()
    write_sealed(root / "m.mar", mar_bytes("m", files={"h.py": ANSWERER}), kek=kek)
    return root


def jwe_bytes(
    contents: bytes, kek: bytes = KEK, key: bytes | None = None, **header: object
) -> bytes:
    """A JWE in compact form, by RFC 7516; `header` adds to or replaces fields."""
    protected = encoded(json.dumps({"alg": "A256KW", "enc": "A256GCM", **header}).encode())
    key, iv = key or secrets.token_bytes(32), secrets.token_bytes(12)
    sealed = AESGCM(key).encrypt(iv, contents, protected)
    parts = (aes_key_wrap(kek, key), iv, sealed[:-16], sealed[-16:])
    return b".".join((protected, *map(encoded, parts)))


def encoded(content: bytes) -> bytes:
    return base64.urlsafe_b64encode(content).rstrip(b"=")
