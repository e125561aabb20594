"""An archive as a file: what may come out of it, and how much.

Archives come from strangers. Nothing in one may name a place outside the directory we unpack
to, be anything but a plain file or a directory, or appear twice; and what an archive declares
about its sizes is never believed: limits count the bytes that really come out. Whoever calls
`unpack` removes the directory when it raises, so a refused archive leaves nothing behind.
"""

import contextlib
import gzip
import os
import stat
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TypeAlias, cast

from torchkeep.modelstore.errors import InvalidArchive, UnreadableArchive

CHUNK_BYTES = 1 << 20
# Room for what the archive says about each entry; zipfile reads all of it before the first.
CENTRAL_ENTRY_BYTES = 256  # zip: 46 bytes and the name
TAR_ENTRY_BYTES = 2048  # tar: a block, and two or three more for a long name
MAX_PATH_CHARS = 1024
PAGE_BYTES = 4096
GZIP_LENGTH_BYTES = 4  # its last ones
MAX_REASON_CHARS = 200
MAR_EXPECTED = "a .mar is a whole zip, as torch-model-archiver packs it"
TAR_EXPECTED = "what is not called .mar has to be a whole tar, compressed by gzip"
ZIP_MAGIC = b"PK"
ZIP_ENCRYPTED = 0x2041  # flags: an entry, by the strong method, the names
# Ordinary text shrinks a hundredfold and empty weights a thousandfold; below this size that
# harms nobody, so the ratio counts only beyond it.
RATIO_FREE_BYTES = 64 << 20

_Readable: TypeAlias = IO[bytes] | gzip.GzipFile


@dataclass(frozen=True, slots=True)
class Limits:
    """How much an archive may hold, counted while it is unpacked."""

    entries: int = 100_000
    total_bytes: int = 64 << 30
    ratio: int = 200  # unpacked to packed; weights rarely shrink at all

    def budget(self, packed_bytes: int) -> int:
        """The unpacked bytes allowed for an archive of this size."""
        return min(self.total_bytes, max(RATIO_FREE_BYTES, self.ratio * packed_bytes))


@dataclass(frozen=True, slots=True)
class Packed:
    """An archive that is open for reading, wherever its bytes come from."""

    file: IO[bytes]
    name: str  # for errors
    size: int
    is_zip: bool  # else a tar, compressed by gzip
    is_secret: bool = False  # sealed: no error may quote it


def unpack(
    packed: Packed,
    url: str,
    directory: Path,
    limits: Limits,
    check_abandoned: Callable[[], None] = lambda: None,
    check_room: Callable[[int], None] | None = None,
) -> None:
    """Unpack an open archive, called `url` in errors, into an existing empty directory.

    `check_abandoned` is called now and then and ends the work by raising. `check_room` is told
    the bytes that will be needed, before the first file is written, and raises where there is no
    room.
    """
    with _translated(packed, url):
        _unpack(packed, _Target(packed, directory, limits, check_abandoned, check_room))


def packed_manifest(packed: Packed, manifest_path: str) -> bytes | None:
    """The manifest in an archive that is not unpacked; None where it has none."""
    finder = _ManifestFinder(packed, manifest_path)
    with _translated(packed, packed.name):
        _unpack(packed, finder)
    return finder.manifest


def _unpack(packed: Packed, target: "_Target") -> None:
    if packed.is_zip:
        _unpack_zip(packed, target)
    else:
        _unpack_tar(packed, target)


@contextlib.contextmanager
def _translated(packed: Packed, url: str) -> Iterator[None]:
    """Whatever the parsers raise becomes UnreadableArchive; it tells why where we may say so."""
    try:
        yield
    except (
        OSError,
        EOFError,
        ValueError,  # both modules let some of their parsing errors through
        ArithmeticError,
        LookupError,
        NotImplementedError,
        RecursionError,
        struct.error,
        zlib.error,
        zipfile.BadZipFile,
        tarfile.TarError,
    ) as error:
        if packed.is_secret:
            raise UnreadableArchive(url) from error
        expected = MAR_EXPECTED if packed.is_zip else TAR_EXPECTED
        reason = (isinstance(error, OSError) and error.strerror) or str(error) or "it is damaged"
        raise UnreadableArchive(url, f"{reason[:MAX_REASON_CHARS]}; {expected}") from error


def _unpack_zip(packed: Packed, target: "_Target") -> None:
    if packed.file.read(len(ZIP_MAGIC)) != ZIP_MAGIC:
        # TorchServe: a .mar that is no zip is an archive without entries, so the answer
        # will be that its model has no name
        return
    central_bytes = CENTRAL_ENTRY_BYTES * target.limits.entries
    reader = _BoundedReader(packed.file, target, central_bytes + CHUNK_BYTES)
    with zipfile.ZipFile(cast(IO[bytes], reader)) as archive_zip:
        entries = archive_zip.infolist()
        target.check_room(sum(_room(entry.file_size) for entry in entries))
        for entry in entries:
            _unpack_zip_entry(archive_zip, entry, target)


def _unpack_zip_entry(
    archive_zip: zipfile.ZipFile, entry: zipfile.ZipInfo, target: "_Target"
) -> None:
    # orig_filename, because zipfile cuts `filename` at the first NUL
    name = entry.orig_filename
    mode = stat.S_IFMT(entry.external_attr >> 16)
    if mode not in (0, stat.S_IFREG, stat.S_IFDIR):
        raise target.refusal(name, "is neither a file nor a directory")
    if entry.flag_bits & ZIP_ENCRYPTED:
        raise target.refusal(name, "is encrypted")
    parts = target.check_name(name)
    if name.endswith("/"):
        target.add_directory(name, parts)
        return
    if mode == stat.S_IFDIR:
        raise target.refusal(name, "is neither a file nor a directory")
    if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        # others are unknown to TorchServe, and xz may demand gigabytes of memory to be opened
        raise NotImplementedError(f"{name}: compression method {entry.compress_type}")
    with archive_zip.open(entry) as content:
        target.add_file(name, parts, _chunks(content))


def _unpack_tar(packed: Packed, target: "_Target") -> None:
    target.check_room(_gzip_length(packed.file))
    with gzip.GzipFile(fileobj=packed.file) as unzipped:
        header_bytes = TAR_ENTRY_BYTES * target.limits.entries
        reader = _BoundedReader(unzipped, target, header_bytes + CHUNK_BYTES)
        if packed.size and not unzipped.peek(1):
            return  # TorchServe: no tar at all, compressed, is one without entries
        reader.is_metered = True
        with tarfile.open(fileobj=cast(IO[bytes], reader), mode="r:") as archive_tar:
            while (entry := archive_tar.next()) is not None:
                archive_tar.members.clear()  # type: ignore[attr-defined]  # or it keeps them all
                reader.is_metered = False
                _unpack_tar_entry(archive_tar, entry, target)
                reader.is_metered = True
        if any(reader.last_block):
            # tarfile takes a damaged header for the end; the end is a block of zeros
            raise tarfile.ReadError("damaged header")
        # only at its end does gzip compare its checksum
        for chunk in _chunks(unzipped):
            target.count(packed.name, len(chunk))


def _unpack_tar_entry(
    archive_tar: tarfile.TarFile, entry: tarfile.TarInfo, target: "_Target"
) -> None:
    if not (entry.isdir() or entry.isreg()) or entry.issparse():
        raise target.refusal(entry.name, "is neither a file nor a directory")
    parts = target.check_name(entry.name)
    # The archiver puts everything under one folder named like the model. TorchServe strips the
    # first component, whatever it is called, be it "."; only a file at the top keeps its name.
    is_below_top = len(parts) > 1 or entry.isdir()
    if is_below_top and not entry.name.startswith("./"):
        parts = parts[1:]
    if entry.isdir():
        target.add_directory(entry.name, parts)
        return
    content = archive_tar.extractfile(entry)
    assert content is not None, "only for links and devices"
    with content:
        target.add_file(entry.name, parts, _chunks(content))


def _gzip_length(file: IO[bytes]) -> int:
    """What a gzip file says about the length of its contents, which is modulo 4 GiB."""
    size = file.seek(0, os.SEEK_END)
    file.seek(max(0, size - GZIP_LENGTH_BYTES))
    length = int.from_bytes(file.read(GZIP_LENGTH_BYTES), "little")
    file.seek(0)
    return length


def _room(length: int) -> int:
    """What a file takes of a file system that gives out whole pages."""
    return -(-length // PAGE_BYTES) * PAGE_BYTES


def _chunks(content: _Readable) -> Iterator[bytes]:
    while chunk := content.read(CHUNK_BYTES):
        yield chunk


class _Target:
    """The directory being filled, and the tally of what may still come."""

    def __init__(
        self,
        packed: Packed,
        directory: Path,
        limits: Limits,
        check_abandoned: Callable[[], None] = lambda: None,
        check_room: Callable[[int], None] | None = None,
    ) -> None:
        self.name = packed.name
        self.directory = directory
        self.limits = limits
        self.check_abandoned = check_abandoned
        self.check_room = check_room or (lambda needed_bytes: None)
        self.entries = 0
        self.remaining_bytes = limits.budget(packed.size)
        self.directories: set[tuple[str, ...]] = {()}
        self.files: set[tuple[str, ...]] = set()

    def refusal(self, entry_name: str, reason: str) -> InvalidArchive:
        shown = entry_name if len(entry_name) <= 200 else entry_name[:200] + "..."
        return InvalidArchive(f"{self.name}: entry {shown!r} {reason}.")

    def check_name(self, name: str) -> tuple[str, ...]:
        """The components of an entry's name, or a refusal."""
        self.check_abandoned()
        self.entries += 1
        if self.entries > self.limits.entries:
            raise self.refusal(name, f"is one more than the limit of {self.limits.entries}")
        if name.startswith("/"):
            raise self.refusal(name, "has an absolute name")
        if "\\" in name or "\0" in name:
            raise self.refusal(name, "has a name with a backslash or NUL")
        parts = tuple(part for part in name.split("/") if part not in ("", "."))
        if ".." in parts:
            raise self.refusal(name, "has a name with '..'")
        if len(name) > MAX_PATH_CHARS:
            raise self.refusal(name, f"has a name of more than {MAX_PATH_CHARS} characters")
        return parts

    def add_directory(self, name: str, parts: tuple[str, ...]) -> None:
        """Create a directory and its parents; naming one twice is harmless."""
        for depth in range(1, len(parts) + 1):
            ancestor = parts[:depth]
            if ancestor in self.files:
                raise self.refusal(name, "collides with an earlier one")
            if ancestor not in self.directories:
                self.directory.joinpath(*ancestor).mkdir(mode=0o700)
                self.directories.add(ancestor)

    def add_file(self, name: str, parts: tuple[str, ...], content: Iterator[bytes]) -> None:
        if not parts or parts in self.files or parts in self.directories:
            raise self.refusal(name, "collides with an earlier one")
        self.add_directory(name, parts[:-1])
        self.files.add(parts)
        path = self.directory.joinpath(*parts)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
        with open(os.open(path, flags, 0o600), "wb") as file:
            for chunk in content:
                self.count(name, len(chunk))
                file.write(chunk)

    def count(self, name: str, length: int) -> None:
        """Take `length` unpacked bytes from the budget, before they reach the disk."""
        self.check_abandoned()
        self.remaining_bytes -= length
        if self.remaining_bytes < 0:
            raise self.refusal(
                name,
                f"exceeds the limit of {self.limits.total_bytes} bytes, or of "
                f"{self.limits.ratio} times the size of the archive",
            )


class _ManifestFinder(_Target):
    """Takes one file into memory and lets all others pass; nothing is written."""

    def __init__(self, packed: Packed, manifest_path: str) -> None:
        super().__init__(packed, Path(), Limits())
        self.wanted = tuple(manifest_path.split("/"))
        self.manifest: bytes | None = None

    def add_directory(self, name: str, parts: tuple[str, ...]) -> None:
        pass

    def add_file(self, name: str, parts: tuple[str, ...], content: Iterator[bytes]) -> None:
        if parts == self.wanted:
            self.manifest = next(content, b"")


class _BoundedReader:
    """What zipfile and tarfile read through, because both trust the lengths in a header.

    No read gets more than `allowance` bytes, and while `is_metered` all of them together. The
    content of an entry is read unmetered: in chunks, by us, and counted by the target.
    """

    def __init__(self, file: _Readable, target: _Target, allowance: int) -> None:
        self.file = file
        self.target = target
        self.allowance = allowance
        self.is_metered = False
        self.last_block = b""
        self.name = target.name
        self.mode = "rb"

    def read(self, size: int = -1) -> bytes:
        most = self.allowance + 1
        self.last_block = self.file.read(most if size < 0 else min(size, most))
        if len(self.last_block) == most:
            raise InvalidArchive(f"{self.name}: the list of entries is too large.")
        if self.is_metered:
            self.allowance -= len(self.last_block)
        return self.last_block

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        return self.file.seek(offset, whence)

    def tell(self) -> int:
        return self.file.tell()

    def seekable(self) -> bool:
        return True
