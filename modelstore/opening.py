"""One archive on its way into the store: found, checked, unpacked."""

import asyncio
import errno
import logging
import re
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar

from torchkeep.modelstore.archive import Limits, unpack
from torchkeep.modelstore.directory_digest import directory_digest
from torchkeep.modelstore.download import download
from torchkeep.modelstore.errors import (
    ArchiveNotFound,
    DownloadFailed,
    InvalidUrl,
    ModelStoreError,
    NoRoomInMemory,
    SealBroken,
    UnreadableArchive,
    Untrusted,
    UrlNotAllowed,
)
from torchkeep.modelstore.found import Contents, Found, packed, recognise
from torchkeep.modelstore.keys import wipe
from torchkeep.modelstore.manifest import Manifest, read_manifest
from torchkeep.modelstore.memory_place import MemoryPlace, check_room
from torchkeep.modelstore.model_config import ModelConfig, read_model_config
from torchkeep.modelstore.model_url import PORT, URL, archive_name, check_not_relative
from torchkeep.modelstore.pinned import PinnedFile
from torchkeep.modelstore.reach import Reach
from torchkeep.modelstore.s3_signing import S3Signer
from torchkeep.modelstore.trust import Trust
from torchkeep.modelstore.unpack_area import UnpackArea, UnpackDir

log = logging.getLogger(__name__)

T = TypeVar("T")

MAX_DOWNLOAD_BYTES = 64 << 30
MAX_NAME_BYTES = 255
MAX_PORT = 65535


@dataclass(frozen=True, slots=True)
class ModelDir:
    """An open archive. Whoever opened it closes it.

    `path` is the worker's cwd and `model_dir`: the unpacked files, or a link to the directory
    of an archive that came unpacked. `digest` is the SHA-256 of the archive, of a sealed one of
    what was sealed; of a directory it is its `directory_digest`.
    """

    url: str
    path: Path
    manifest: Manifest
    config: ModelConfig
    unpacked: UnpackDir
    digest: bytes
    downloaded: Path | None = None  # the store's copy of an archive that came from a url
    sealed: bool = False  # it came from a sealed archive, so its files are secret

    def close(self) -> None:
        """Delete what was unpacked. May be called twice; blocks while files are removed."""
        self.unpacked.remove()

    def forget(self) -> None:
        """Close, and delete the store's copy of an archive that came from a url."""
        self.close()
        if self.downloaded is not None:
            self.downloaded.unlink(missing_ok=True)


@dataclass(frozen=True, slots=True)
class OpeningRules:
    """Where archives are looked for and unpacked, and which of them are let in."""

    root: Path | None
    allowed_urls: Sequence[str]  # regular expressions
    area: UnpackArea
    memory_place: MemoryPlace  # in place of `area`, for sealed ones
    trust: Trust
    reach: Reach
    signer: S3Signer  # of downloads that ask for it
    limits: Limits
    max_download_bytes: int = MAX_DOWNLOAD_BYTES

    def unpack_roots(self) -> list[Path]:
        """Every directory below which archives may be unpacked."""
        return list(dict.fromkeys([self.area.root, *self.memory_place.roots()]))

    def check_redirect(self, url: str) -> None:
        """Raise like a registration would for this url."""
        check_not_relative(url)
        self.check_allowed(url)

    def check_allowed(self, url: str) -> None:
        """Raise UrlNotAllowed unless one of `allowed_urls` matches all of `url`."""
        if not any(re.fullmatch(allowed, url, re.IGNORECASE) for allowed in self.allowed_urls):
            raise UrlNotAllowed(url)


class _Abandoned(ModelStoreError):
    """Nobody waits for this archive any more."""


class Opening:
    """One call of `ModelStore.open`: what blocks of it, to be done in threads."""

    def __init__(
        self, rules: OpeningRules, url: str, model_name: str | None, is_signed: bool
    ) -> None:
        self.rules = rules
        self.url = url
        self.model_name = model_name
        self.is_signed = is_signed
        self.abandoned = threading.Event()

    async def in_thread(self, step: Callable[[], T], undo: Callable[[T], None]) -> T:
        """Run a step; where we are cancelled meanwhile, `undo` what it comes to."""

        def undo_unwanted(work: "asyncio.Future[T]") -> None:
            if not work.cancelled() and work.exception() is None:
                undo(work.result())

        work = asyncio.get_running_loop().run_in_executor(None, step)
        try:
            return await asyncio.shield(work)
        except asyncio.CancelledError:
            # The thread cannot be cancelled: it stops at its next look, or its result is undone.
            self.abandoned.set()
            work.add_done_callback(undo_unwanted)
            raise

    def find(self) -> Found:
        """The archive, fetched where the url says so; all that needs no key is checked."""
        root = self._check_url()
        url = URL.fullmatch(self.url)
        if url is None:
            return self._recognise(self._find(root), downloaded=None)
        self.rules.check_allowed(self.url)
        port = PORT.fullmatch(url["place"])
        if port is not None and int(port[1]) > MAX_PORT:
            raise InvalidUrl(f"port out of range:{port[1]}")
        name = archive_name(self.url)
        if not name.strip(".") or not name.isprintable():
            raise DownloadFailed(self.url, "it does not end in the name of a file")
        if len(name.encode()) > MAX_NAME_BYTES:
            raise DownloadFailed(self.url, "the name of its file is too long")
        target = root / name
        download(
            self.url,
            target,
            self.rules.max_download_bytes,
            self.rules.check_redirect,
            self._check_abandoned,
            reach=self.rules.reach,
            private=[UnpackArea(place).models for place in self.rules.unpack_roots()],
            sign=self.rules.signer.headers if self.is_signed else None,
        )
        return self._recognise(target, downloaded=target)

    def unpack(self, found: Found, key: bytearray | None) -> ModelDir:
        """The model directory of what was found; the key is wiped as soon as it was used."""
        try:
            contents = self._contents(found, key)
            try:
                return self._open_archive(found, contents)
            finally:
                if contents is not None:
                    contents.close()
        except BaseException:
            found.discard()
            raise
        finally:
            found.close()

    def _check_url(self) -> Path:
        """What TorchServe checks before it looks anywhere, in its order."""
        if not self.url:
            raise ArchiveNotFound("empty url")
        check_not_relative(self.url)
        if self.rules.root is None:
            raise ArchiveNotFound("Model store has not been configured.")
        if "\0" in self.url:
            raise InvalidUrl("The url holds a NUL character, which no path and no host can.")
        return self.rules.root

    def _find(self, root: Path) -> Path:
        """The file or directory that a url without a scheme names."""
        # TorchServe: of a path to a file only the last component counts, in the model store; else
        # a directory may be anywhere. Our rule for two directories: a bare name is the store's.
        name = archive_name(self.url)
        if name in ("", "."):
            raise ArchiveNotFound.at(self.url)
        in_store, anywhere = root / name, Path(self.url)
        candidates = (anywhere, in_store) if "/" in self.url else (in_store, anywhere)
        try:
            if in_store.is_file():
                return in_store
            for path in candidates:
                if path.is_dir():
                    return path.absolute()
        except (OSError, ValueError) as error:  # too long, or with a NUL
            raise ArchiveNotFound.at(self.url) from error
        raise ArchiveNotFound.at(self.url)

    def _recognise(self, path: Path, downloaded: Path | None) -> Found:
        found = Found(path, downloaded)
        try:
            found = recognise(path, downloaded)
            trust = self.rules.trust
            is_sealed = found.sealed is not None
            trust.check_is_sealed(path.name, is_sealed=is_sealed, has_digest=path.is_file())
            if is_sealed:
                self.rules.memory_place.area()
            if found.header is not None:
                self._check_name(found.header.model_name)
                trust.check_header(found.header)
            return found
        except BaseException as error:
            found.discard()
            if not isinstance(error, OSError):
                raise
            log.warning("cannot open %s: %s", path.name, error)
            raise UnreadableArchive(self.url) from error

    def _contents(self, found: Found, key: bytearray | None) -> Contents | None:
        """The bytes of an archive; None of one that came unpacked."""
        if found.sealed is None:
            return self._plain_contents(found.path) if found.path.is_file() else None
        assert key is not None, "asked for before"
        try:
            return found.sealed.unlock(key)
        finally:
            wipe(key)

    def _plain_contents(self, archive: Path) -> PinnedFile:
        try:
            return PinnedFile(archive, is_digest_first=self.rules.trust.models is not None)
        except OSError as error:
            log.warning("cannot open %s: %s", archive.name, error)
            raise UnreadableArchive(self.url) from error

    def _open_archive(self, found: Found, contents: Contents | None) -> ModelDir:
        area = self.rules.memory_place.area() if found.sealed else self.rules.area
        try:
            unpacked = area.create()
        except OSError as error:
            log.warning("cannot unpack %s: %s", found.path.name, error)
            raise UnreadableArchive(self.url) from error
        try:
            path = self._fill(unpacked.path, found, contents)
            manifest = read_manifest(path)
            self._check_manifest(manifest, found, contents)
            config = ModelConfig()
            if manifest.config_file is not None:
                config = read_model_config(path / manifest.config_file)
            self._check_abandoned()
            return ModelDir(
                self.url,
                path,
                manifest,
                config,
                unpacked,
                self._digest(path, contents),
                found.downloaded,
                sealed=found.sealed is not None,
            )
        except BaseException as error:
            unpacked.remove()
            if not isinstance(error, OSError | UnreadableArchive):
                raise
            cause = error.__cause__ or error
            log.warning("cannot unpack %s: %s", found.path.name, cause)
            if found.sealed and isinstance(cause, OSError) and cause.errno == errno.ENOSPC:
                raise NoRoomInMemory(
                    f"Memory below {area.models} ran out: give that file system more, "
                    "or set unpack_directory to a larger one."
                ) from error
            if isinstance(error, UnreadableArchive):
                raise
            raise UnreadableArchive(self.url) from error

    def _fill(self, directory: Path, found: Found, contents: Contents | None) -> Path:
        """Put the archive's files into `directory`; returns where they are."""
        if contents is not None:
            self._unpack(directory, found, contents)
            return directory
        archive = found.path
        children = list(archive.iterdir())
        # TorchServe: a directory that holds nothing but a directory stands for that one
        if len(children) == 1 and children[0].is_dir():
            archive = children[0]
        link = directory / archive.name
        link.symlink_to(archive, target_is_directory=True)
        return link

    def _unpack(self, directory: Path, found: Found, contents: Contents) -> None:
        rules, check_abandoned = self.rules, self._check_abandoned
        with contents.verified(check_abandoned) as reader:
            if found.header is None:
                rules.trust.check_digest(contents.name, contents.sha256)
            archive_file = packed(contents, reader)
            room = partial(check_room, directory) if found.sealed else None
            unpack(archive_file, self.url, directory, rules.limits, check_abandoned, room)

    def _digest(self, directory: Path, contents: Contents | None) -> bytes:
        if contents is not None:
            return contents.sha256
        return directory_digest(directory, self._check_abandoned)

    def _check_manifest(self, manifest: Manifest, found: Found, contents: Contents | None) -> None:
        """That the manifest says what was said outside of it."""
        name, version = manifest.model_name, manifest.model_version
        header = found.header
        if header is not None:
            if (name, version) != (header.model_name, header.model_version):
                raise SealBroken(
                    found.path.name,
                    f"its header says model {header.model_name} {header.model_version}, "
                    f"its manifest {name} {version}",
                )
        elif contents is not None:
            self.rules.trust.check_contents(name, version, contents.sha256)
            if found.sealed is not None:
                self._check_name(name)

    def _check_name(self, archived_name: str | None) -> None:
        if archived_name and self.model_name not in (None, archived_name):
            raise Untrusted(
                f"The sealed archive is of model {archived_name}, "
                f"and cannot be served as {self.model_name}."
            )

    def _check_abandoned(self) -> None:
        if self.abandoned.is_set():
            raise _Abandoned("Nobody waits for this archive any more.")
