"""A plain archive by its digest: what was hashed is what is unpacked.

The file may change between the two, so a mark of each chunk is kept and compared. Where the
digest decides whether to unpack at all, everything is hashed first; else while it is unpacked.

A mark is GMAC under a key that nobody else knows, and costs a tenth of a hash. Its nonce is the
number of the chunk, for both passes: whoever changes the file never sees a mark.
"""

import contextlib
import hashlib
import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from torchkeep.modelstore.chunk_reader import ChunkReader
from torchkeep.modelstore.errors import InvalidArchive

CHUNK_BYTES = 1 << 20
NONCE_BYTES = 12


class PinnedFile:
    """The contents of a plain archive. Whoever opened it closes it. Raises OSError."""

    def __init__(self, path: Path, *, is_digest_first: bool) -> None:
        """`is_digest_first`: `sha256` is wanted before the first byte is unpacked."""
        self.name = path.name
        self.chunk_size = CHUNK_BYTES
        self.sha256 = b""
        self._is_digest_first = is_digest_first
        self._descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        self.length = os.fstat(self._descriptor).st_size
        self._marker = AESGCM(AESGCM.generate_key(256))
        self._hashed: list[bytes] = []  # marks of chunks, as `sha256` counts them
        self._read: dict[int, bytes] = {}  # and as they were read before that

    @contextlib.contextmanager
    def verified(self, check_abandoned: Callable[[], None] = lambda: None) -> Iterator[ChunkReader]:
        """A seekable file. Whoever leaves without an error has read what `sha256` is the digest of.

        Raises InvalidArchive where the file changes meanwhile.
        """
        if self._is_digest_first:
            self._hash(check_abandoned)
            yield ChunkReader(self)
            return
        is_over = threading.Event()

        def check() -> None:
            check_abandoned()
            if is_over.is_set():
                raise _Over

        with ThreadPoolExecutor(1) as hasher:
            hashing = hasher.submit(self._hash, check)
            try:
                yield ChunkReader(self)
                hashing.result()
                for index, mark in self._read.items():
                    self._compare(index, mark)
            finally:
                is_over.set()

    def fill(self, index: int, buffer: bytearray) -> int:
        wanted = min(CHUNK_BYTES, self.length - index * CHUNK_BYTES)
        chunk = memoryview(buffer)[:wanted]
        os.preadv(self._descriptor, [chunk], index * CHUNK_BYTES)
        mark = self._mark(index, chunk)
        if index < len(self._hashed):
            self._compare(index, mark)
        elif self._read.setdefault(index, mark) != mark:
            raise self._changed()
        return wanted

    def close(self) -> None:
        """May be called twice."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def _hash(self, check: Callable[[], None]) -> None:
        whole = hashlib.sha256()
        buffer = bytearray(CHUNK_BYTES)
        for index, start in enumerate(range(0, self.length, CHUNK_BYTES)):
            check()
            chunk = memoryview(buffer)[: min(CHUNK_BYTES, self.length - start)]
            if os.preadv(self._descriptor, [chunk], start) != len(chunk):
                raise self._changed()
            whole.update(chunk)
            self._hashed.append(self._mark(index, chunk))
        self.sha256 = whole.digest()

    def _mark(self, index: int, chunk: memoryview) -> bytes:
        return self._marker.encrypt(index.to_bytes(NONCE_BYTES, "big"), b"", chunk)

    def _compare(self, index: int, mark: bytes) -> None:
        if self._hashed[index] != mark:
            raise self._changed()

    def _changed(self) -> InvalidArchive:
        return InvalidArchive(f"{self.name} changed while it was being opened.")


class _Over(Exception):
    """Nobody waits for the digest any more."""
