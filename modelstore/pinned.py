"""A plain archive whose digest counts: what was hashed is what will be unpacked.

The file may change between the two, so the digest of each chunk is kept from the first pass.
"""

import contextlib
import hashlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path

from torchkeep.modelstore.chunk_reader import ChunkReader
from torchkeep.modelstore.errors import InvalidArchive

CHUNK_BYTES = 1 << 20


class PinnedFile:
    """The contents of a plain archive. Whoever opened it closes it. Raises OSError."""

    def __init__(self, path: Path) -> None:
        self.name = path.name
        self.chunk_size = CHUNK_BYTES
        self.length = 0
        self.sha256 = b""
        self._descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        self._digests: list[bytes] = []

    @contextlib.contextmanager
    def verified(self, check_abandoned: Callable[[], None] = lambda: None) -> Iterator[ChunkReader]:
        """A seekable file of the contents, once `sha256` is that of every byte in it."""
        self.verify(check_abandoned)
        yield self.reader()

    def verify(self, check_abandoned: Callable[[], None] = lambda: None) -> None:
        """Read and hash everything; `check_abandoned` ends the work by raising."""
        whole = hashlib.sha256()
        buffer = bytearray(CHUNK_BYTES)
        while count := os.preadv(self._descriptor, [buffer], self.length):
            check_abandoned()
            chunk = memoryview(buffer)[:count]
            whole.update(chunk)
            self._digests.append(hashlib.sha256(chunk).digest())
            self.length += count
            if count < CHUNK_BYTES:
                break
        self.sha256 = whole.digest()

    def fill(self, index: int, buffer: bytearray) -> int:
        wanted = min(CHUNK_BYTES, self.length - index * CHUNK_BYTES)
        chunk = memoryview(buffer)[:wanted]
        os.preadv(self._descriptor, [chunk], index * CHUNK_BYTES)
        if hashlib.sha256(chunk).digest() != self._digests[index]:
            raise InvalidArchive(f"{self.name} changed while it was being opened.")
        return wanted

    def reader(self) -> ChunkReader:
        """A seekable file of what was hashed."""
        return ChunkReader(self)

    def close(self) -> None:
        """May be called twice."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1
