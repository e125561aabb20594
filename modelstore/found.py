"""An archive that was found, of whichever kind, until it is unpacked.

Sealed ones are recognised by how they begin, whatever they are called. One that is called as
if it were sealed is opened as such too, so that damage at its beginning is told as damage.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Protocol, cast

from torchkeep.modelstore.archive import ZIP_MAGIC, Packed
from torchkeep.modelstore.chunk_reader import ChunkReader
from torchkeep.modelstore.jwe import MAX_PROTECTED_BYTES, JweFile, is_jwe, open_jwe
from torchkeep.modelstore.pinned import PinnedFile
from torchkeep.modelstore.seal_header import MAGIC, SealHeader
from torchkeep.modelstore.sealed import SealedFile, is_sealed, open_sealed

SEALED_SUFFIX = ".sealed"
JWE_SUFFIX = ".jwe"
START_BYTES = MAX_PROTECTED_BYTES
ZIP_STARTS = (b"PK\x03\x04", b"PK\x05\x06")  # the second: nothing in it
GZIP_MAGIC = b"\x1f\x8b"
JWS_DOTS = 2


class Contents(Protocol):
    """An archive's bytes, as the `verified` file has them."""

    name: str
    length: int
    sha256: bytes  # right once `verified` was left without an error

    def verified(
        self, check_abandoned: Callable[[], None]
    ) -> AbstractContextManager[ChunkReader | IO[bytes]]: ...

    def close(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Found:
    """Open where it is sealed, and waiting for its key; `close` or `discard` it."""

    path: Path
    downloaded: Path | None = None  # the store's copy of an archive that came from a url
    sealed: SealedFile | JweFile | None = None

    @property
    def header(self) -> SealHeader | None:
        """What a sealed archive says of itself, as long as it is not unlocked unproved."""
        return self.sealed.header if isinstance(self.sealed, SealedFile) else None

    def close(self) -> None:
        if self.sealed is not None:
            self.sealed.close()

    def discard(self) -> None:
        """Close, and delete the store's copy of an archive that came from a url."""
        self.close()
        if self.downloaded is not None:
            # TorchServe keeps the file, and the next attempt fails because it is there
            self.downloaded.unlink(missing_ok=True)


def recognise(path: Path, downloaded: Path | None) -> Found:
    """Raises SealBroken for a sealed archive that needs no key to be refused, and OSError."""
    if not path.is_file():
        return Found(path, downloaded)
    with path.open("rb") as file:
        start = file.read(len(MAGIC))
    if is_sealed(start) or path.name.endswith(SEALED_SUFFIX):
        return Found(path, downloaded, open_sealed(path))
    if is_jwe(start) or path.name.endswith(JWE_SUFFIX):
        return Found(path, downloaded, open_jwe(path))
    return Found(path, downloaded)


def looks_like_archive(start: bytes) -> bool:
    """Whether a file that begins like this may be an archive; `start` is START_BYTES of it."""
    if is_jwe(start):
        # Tokens (JWS) begin alike, a cluster's for this very pod among them, and have fewer parts.
        return start.count(b".") > JWS_DOTS
    return is_sealed(start) or start.startswith((*ZIP_STARTS, GZIP_MAGIC))


def packed(contents: Contents, reader: ChunkReader | IO[bytes]) -> Packed:
    """The verified file of `contents`, as an archive to unpack."""
    is_secret = not isinstance(contents, PinnedFile)
    if is_secret:
        is_zip = reader.read(len(ZIP_MAGIC)) == ZIP_MAGIC
        reader.seek(0)
    else:
        is_zip = contents.name.endswith(".mar")
    return Packed(cast(IO[bytes], reader), contents.name, contents.length, is_zip, is_secret)
