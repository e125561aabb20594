"""Sealed archives: written by the model's owner, opened only by whoever has the key.

    magic ‖ header length ‖ header ‖ [owner's signature] ‖ header tag ‖ chunk ‖ chunk ‖ ...

Each chunk is AES-256-GCM with a nonce that holds its number and whether it is the last one, and
with the digest of the header as associated data (the STREAM construction). So no chunk can be
changed, moved, left out, added or taken from another archive. Nothing that was not checked
leaves this module, and nothing is ever held but a few chunks.
"""

import contextlib
import hashlib
import hmac
import os
import secrets
import stat
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from cryptography.exceptions import InvalidSignature, InvalidTag
from cryptography.hazmat.primitives.asymmetric.ed25519 import (
    Ed25519PrivateKey,
    Ed25519PublicKey,
)
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.keywrap import aes_key_wrap

from torchkeep.modelstore.chunk_reader import ChunkReader
from torchkeep.modelstore.errors import KeyUnavailable, SealBroken, SealingError
from torchkeep.modelstore.key_wrap import unwrap_key
from torchkeep.modelstore.keys import KEY_BYTES, wipe
from torchkeep.modelstore.seal_header import (
    LENGTH_BYTES,
    MAGIC,
    MAX_CHUNK_BYTES,
    MAX_HEADER_BYTES,
    NONCE_PREFIX_BYTES,
    SealHeader,
    decode_header,
)

SIGNATURE_BYTES = 64
HEADER_TAG_BYTES = 32
CHUNK_TAG_BYTES = 16


@dataclass(frozen=True, slots=True)
class SealRequest:
    """What the owner says about an archive that he seals."""

    model_name: str
    model_version: str
    release: int
    key_id: str
    signing_key: Ed25519PrivateKey | None = None
    chunk_size: int = MAX_CHUNK_BYTES


def seal(plain: IO[bytes], sealed: IO[bytes], kek: bytearray, request: SealRequest) -> SealHeader:
    """Write the archive `plain`, a plain file, into `sealed`; returns the header."""
    plain.seek(0)
    digest = _digest(plain)
    data_keys = bytearray(secrets.token_bytes(2 * KEY_BYTES))
    signing_key = request.signing_key
    header = SealHeader(
        model_name=request.model_name,
        model_version=request.model_version,
        release=request.release,
        key_id=request.key_id,
        wrapped_key=aes_key_wrap(kek, data_keys),
        nonce_prefix=secrets.token_bytes(NONCE_PREFIX_BYTES),
        plaintext_length=plain.tell(),
        plaintext_sha256=digest,
        chunk_size=request.chunk_size,
        owner=signing_key.public_key().public_bytes_raw() if signing_key else None,
    )
    text = header.encode()
    try:
        decode_header(text)
    except ValueError as error:
        raise SealingError(f"The archive cannot be sealed: {error}.") from error
    signed = MAGIC + len(text).to_bytes(LENGTH_BYTES, "big") + text
    if signing_key is not None:
        signed += signing_key.sign(signed)
    sealed.write(signed + hmac.digest(data_keys[KEY_BYTES:], signed, "sha256"))
    _write_chunks(plain, sealed, header, AESGCM(data_keys[:KEY_BYTES]))
    wipe(data_keys)
    return header


def _write_chunks(plain: IO[bytes], sealed: IO[bytes], header: SealHeader, cipher: AESGCM) -> None:
    associated = hashlib.sha256(header.encode()).digest()
    digest = hashlib.sha256()
    plain.seek(0)
    for index in range(header.chunk_count):
        chunk = plain.read(header.chunk_size)
        digest.update(chunk)
        sealed.write(cipher.encrypt(_nonce(header, index), chunk, associated))
    if digest.digest() != header.plaintext_sha256 or plain.read(1):
        raise SealingError("The archive changed while it was being sealed.")


def _digest(plain: IO[bytes]) -> bytes:
    digest = hashlib.sha256()
    while piece := plain.read(MAX_CHUNK_BYTES):
        digest.update(piece)
    return digest.digest()


def _nonce(header: SealHeader, index: int) -> bytes:
    # The key is drawn for one archive alone, and each of its chunks is encrypted once.
    is_last = index == header.chunk_count - 1
    return header.nonce_prefix + index.to_bytes(4, "big") + bytes([is_last])


class SealedFile:
    """An open sealed archive whose key is not known yet. Whoever opened it closes it.

    Nothing here has been proved but the signature, where there is one.
    """

    def __init__(self, descriptor: int, name: str, header: SealHeader, preamble: bytes) -> None:
        self.name = name
        self.header = header
        self.descriptor = descriptor
        self._preamble = preamble

    @property
    def key_id(self) -> str:
        return self.header.key_id

    def unlock(self, kek: bytearray) -> "UnlockedArchive":
        """The archive as a reader of its contents; the caller wipes `kek`."""
        header, signed_length = self.header, len(self._preamble) - HEADER_TAG_BYTES
        data_keys = unwrap_key(kek, header.wrapped_key) if len(kek) == KEY_BYTES else None
        if data_keys is None:
            raise KeyUnavailable(
                self.key_id,
                "wrong key",
                f"It does not open {self.name}: ask for the key it was sealed with. "
                "If that is the one, the archive's header was changed.",
            )
        chunk_key, header_key = data_keys[:KEY_BYTES], data_keys[KEY_BYTES:]
        try:
            tag = hmac.digest(header_key, self._preamble[:signed_length], "sha256")
            if not hmac.compare_digest(tag, self._preamble[signed_length:]):
                raise SealBroken(self.name, "its header was changed after it was sealed")
            start = len(self._preamble)
            return UnlockedArchive(self, start, AESGCM(chunk_key))
        finally:
            for secret in (data_keys, chunk_key, header_key):
                wipe(secret)

    def close(self) -> None:
        """May be called twice."""
        if self.descriptor >= 0:
            os.close(self.descriptor)
            self.descriptor = -1


class UnlockedArchive:
    """The contents of a sealed archive, chunk by chunk, each one checked at each read."""

    def __init__(self, file: SealedFile, start: int, cipher: AESGCM) -> None:
        self.name = file.name
        self.length = file.header.plaintext_length
        self.sha256 = file.header.plaintext_sha256
        self._file = file
        self._start = start
        self._cipher: AESGCM | None = cipher

    @contextlib.contextmanager
    def verified(self, check_abandoned: Callable[[], None] = lambda: None) -> Iterator[ChunkReader]:
        """A seekable file of the contents, in which every chunk was checked once already.

        Who has the key could put other chunks behind a header that the owner signed, and only
        the digest tells. It takes longer than all else and is computed meanwhile, which hurts
        nobody: whoever leaves without an error knows it is right.
        """
        is_over = threading.Event()
        with ThreadPoolExecutor(1) as hasher:
            digest = hasher.submit(self._digest, is_over)
            try:
                self.verify(check_abandoned)
                yield self.reader()
                if digest.result() != self.sha256:
                    raise SealBroken(
                        self.name, "its contents are not those whose digest its header has"
                    )
            finally:
                is_over.set()

    def verify(self, check_abandoned: Callable[[], None] = lambda: None) -> None:
        """Check every chunk; raises SealBroken. `check_abandoned` ends the work by raising."""
        chunks, buffer = self._chunks(), bytearray(self._file.header.chunk_size)
        for index in range(self._file.header.chunk_count):
            check_abandoned()
            chunks.fill(index, buffer)

    def reader(self) -> ChunkReader:
        """A seekable file of the contents, good while the sealed file is open."""
        return ChunkReader(self._chunks())

    def close(self) -> None:
        """May be called twice. The key goes with it, however long a reader is still around."""
        self._cipher = None
        self._file.close()

    def decrypt_into(
        self, nonce: bytes, sealed: memoryview, associated: bytes, chunk: memoryview
    ) -> None:
        """Raises InvalidTag."""
        assert self._cipher is not None, "closed"
        self._cipher.decrypt_into(nonce, sealed, associated, chunk)

    def _chunks(self) -> "_OpenedChunks":
        return _OpenedChunks(self, self._file, self._start)

    def _digest(self, is_over: threading.Event) -> bytes:
        digest = hashlib.sha256()
        chunks, buffer = self._chunks(), bytearray(self._file.header.chunk_size)
        for index in range(self._file.header.chunk_count):
            if is_over.is_set():
                break
            length = chunks.fill(index, buffer)
            digest.update(memoryview(buffer)[:length])
        return digest.digest()


class _OpenedChunks:
    """Decrypts and checks one chunk after the other, for one thread."""

    def __init__(self, archive: UnlockedArchive, file: SealedFile, start: int) -> None:
        self.length = file.header.plaintext_length
        self.chunk_size = file.header.chunk_size
        self._archive = archive
        self._file = file
        self._start = start
        self._associated = hashlib.sha256(file.header.encode()).digest()
        self._sealed_chunk = bytearray(self.chunk_size + CHUNK_TAG_BYTES)

    def fill(self, index: int, buffer: bytearray) -> int:
        file = self._file
        length = min(self.chunk_size, self.length - index * self.chunk_size)
        sealed = memoryview(self._sealed_chunk)[: length + CHUNK_TAG_BYTES]
        offset = self._start + index * (self.chunk_size + CHUNK_TAG_BYTES)
        if os.preadv(file.descriptor, [sealed], offset) != len(sealed):
            raise SealBroken(file.name, f"it ends inside chunk {index}")
        nonce, chunk = _nonce(file.header, index), memoryview(buffer)[:length]
        try:
            self._archive.decrypt_into(nonce, sealed, self._associated, chunk)
        except InvalidTag:
            where = f"chunk {index} of {file.header.chunk_count}"
            raise SealBroken(
                file.name, f"{where} was changed, moved or comes from another archive"
            ) from None
        return length


def is_sealed(start: bytes) -> bool:
    """Whether a file that begins like this is a sealed archive of ours."""
    return start.startswith(MAGIC)


def open_sealed(path: Path) -> SealedFile:
    """Read and check what needs no key. Raises SealBroken, OSError."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise SealBroken(path.name, "it is no plain file")
        try:
            return _read_preamble(descriptor, path.name)
        except ValueError as error:
            raise SealBroken(path.name, str(error)) from error
    except BaseException:
        os.close(descriptor)
        raise


def _read_preamble(descriptor: int, name: str) -> SealedFile:
    head = os.pread(descriptor, len(MAGIC) + LENGTH_BYTES, 0)
    if head[: len(MAGIC)] != MAGIC:
        raise ValueError("it does not begin as a sealed archive does")
    length = int.from_bytes(head[len(MAGIC) :], "big")
    if len(head) < len(MAGIC) + LENGTH_BYTES:
        raise ValueError("it ends inside its header")
    if length > MAX_HEADER_BYTES:
        raise ValueError(f"its header would be {length} bytes long, at most {MAX_HEADER_BYTES} are")
    text = os.pread(descriptor, length, len(head))
    if len(text) < length:
        raise ValueError("it ends inside its header")
    header = decode_header(text)
    signed = head + text
    if header.owner is not None:
        signature = os.pread(descriptor, SIGNATURE_BYTES, len(signed))
        _check_signature(header.owner, signature, signed)
        signed += signature
    tag = os.pread(descriptor, HEADER_TAG_BYTES, len(signed))
    expected = (
        len(signed)
        + HEADER_TAG_BYTES
        + header.plaintext_length
        + header.chunk_count * CHUNK_TAG_BYTES
    )
    size = os.fstat(descriptor).st_size
    if size < expected:
        raise ValueError(f"it was cut off: {size} bytes of {expected}")
    if size > expected:
        raise ValueError(f"it goes on for {size - expected} bytes behind its end")
    return SealedFile(descriptor, name, header, signed + tag)


def _check_signature(owner: bytes, signature: bytes, signed: bytes) -> None:
    try:
        Ed25519PublicKey.from_public_bytes(owner).verify(signature, signed)
    except InvalidSignature:
        raise ValueError("its header is not what its owner signed") from None
