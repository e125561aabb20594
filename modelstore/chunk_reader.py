"""A seekable file over chunks that are checked one by one, each time they are read.

The file below may belong to an enemy who changes it while we read. Whoever hands out a chunk
has checked it, so what zipfile and tarfile see here is what was there at the first pass.
"""

import io
import os
from collections import OrderedDict
from typing import Protocol

OPEN_CHUNKS = 4  # a reader is at one place, and jumps to the list of entries and back


class Chunks(Protocol):
    """Contents that can be had chunk by chunk; all are full but the last."""

    @property
    def length(self) -> int: ...

    @property
    def chunk_size(self) -> int: ...

    def fill(self, index: int, buffer: bytearray) -> int:
        """Put a checked chunk at the start of `buffer`, or raise; returns its length."""
        ...


class ChunkReader(io.RawIOBase):
    """What zipfile, tarfile and gzip need of a file, and no more."""

    def __init__(self, chunks: Chunks) -> None:
        super().__init__()
        self._chunks = chunks
        self._position = 0
        self._open: OrderedDict[int, bytearray] = OrderedDict()  # the latest last

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        start = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._chunks.length}
        position = start[whence] + offset
        if position < 0:
            raise ValueError(f"negative seek position {position}")
        self._position = position
        return position

    def read(self, size: int | None = -1, /) -> bytes:
        """As many bytes as asked for, fewer only at the end."""
        left = max(0, self._chunks.length - self._position)
        if size is not None and size >= 0:
            left = min(left, size)
        pieces = []
        while left:
            index, offset = divmod(self._position, self._chunks.chunk_size)
            length = min(left, self._chunks.chunk_size - offset)
            # a copy: the chunk's place is soon used for another
            pieces.append(bytes(memoryview(self._chunk(index))[offset : offset + length]))
            self._position += length
            left -= length
        return b"".join(pieces)

    def _chunk(self, index: int) -> bytearray:
        buffer = self._open.pop(index, None)
        if buffer is None:
            if len(self._open) < OPEN_CHUNKS:
                buffer = bytearray(self._chunks.chunk_size)
            else:
                _, buffer = self._open.popitem(last=False)
            self._chunks.fill(index, buffer)
        self._open[index] = buffer
        return buffer
