"""The model store: from the url of a register call to an unpacked, checked model directory."""

import asyncio
import errno
import logging
import re
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Protocol, TypeVar
from urllib.parse import unquote

from torchkeep.modelstore.archive import Limits, unpack
from torchkeep.modelstore.directory_digest import directory_digest
from torchkeep.modelstore.download import download
from torchkeep.modelstore.errors import (
    ArchiveNotFound,
    DownloadFailed,
    InvalidUrl,
    KeyUnavailable,
    ModelStoreError,
    NoRoomInMemory,
    SealBroken,
    UnreadableArchive,
    Untrusted,
    UrlNotAllowed,
)
from torchkeep.modelstore.found import (
    JWE_SUFFIX,
    SEALED_SUFFIX,
    Contents,
    Found,
    packed,
    recognise,
)
from torchkeep.modelstore.jwe import JweFile
from torchkeep.modelstore.keys import KeySource, wipe
from torchkeep.modelstore.manifest import Manifest, read_manifest
from torchkeep.modelstore.memory_place import MemoryPlace, check_room
from torchkeep.modelstore.model_config import ModelConfig, read_model_config
from torchkeep.modelstore.pinned import PinnedFile
from torchkeep.modelstore.reach import Reach
from torchkeep.modelstore.s3_signing import S3Signer
from torchkeep.modelstore.sealed import SealedFile
from torchkeep.modelstore.trust import Trust
from torchkeep.modelstore.unpack_area import UnpackArea, UnpackDir

log = logging.getLogger(__name__)

T = TypeVar("T")

ARCHIVE_SUFFIXES = (".mar", ".model", ".tar.gz", SEALED_SUFFIX, JWE_SUFFIX)
MAX_DOWNLOAD_BYTES = 64 << 30
MAX_NAME_BYTES = 255
MAX_PORT = 65535
MAX_DECODINGS = 4  # of a path with percent signs
# Not urlsplit, which drops some characters and raises on others.
_URL = re.compile(
    r"(file|https?)://(?P<place>[^/?#]*)(?P<path>[^?#]*)(?P<query>.*)", re.IGNORECASE | re.DOTALL
)
_PORT = re.compile(r".*:0*([0-9]{1,9})", re.DOTALL)


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


class KeyWait(Protocol):
    """Whoever has time to wait for the key of a sealed archive."""

    def begin(self, model_name: str, model_version: str) -> None:
        """The archive is found; it says this of itself, or nothing."""
        ...

    async def pause(self, error: KeyUnavailable) -> None:
        """The key cannot be had now; when this returns it is asked for again."""
        ...


class ModelStore:
    """Finds archives in one directory, or fetches them into it, and opens them."""

    def __init__(
        self,
        root: Path | None,
        allowed_urls: Sequence[str],
        unpack_root: Path,
        *,
        key_source: KeySource | None = None,
        default_key_id: str = "",
        trust: Trust | None = None,
        memory_place: MemoryPlace | None = None,
        reach: Reach | None = None,
        signer: S3Signer | None = None,
        limits: Limits | None = None,
        max_download_bytes: int = MAX_DOWNLOAD_BYTES,
    ) -> None:
        self.root = root
        self.allowed_urls = list(allowed_urls)
        self.area = UnpackArea(unpack_root)
        self.key_source = key_source
        self.default_key_id = default_key_id  # of archives that do not name their key
        self.trust = trust or Trust()
        self.memory_place = memory_place or MemoryPlace(None, unpack_root)  # for sealed ones
        self.reach = reach or Reach()
        self.signer = signer or S3Signer.from_environment({})  # of downloads that ask for it
        self.limits = limits or Limits()
        self.max_download_bytes = max_download_bytes

    async def open(
        self,
        url: str,
        model_name: str | None = None,
        wait: KeyWait | None = None,
        *,
        is_signed: bool = False,
    ) -> ModelDir:
        """Find, unpack and check the archive; leaves nothing behind when it raises.

        `is_signed`: where it is downloaded, in the name of the server.

        Where a key cannot be had just now, it is asked for again as long as `wait` has it;
        without, KeyUnavailable is raised.

        `model_name` is the name it will be served under. What is sealed has only its own: else
        whoever keeps the archives could serve one model in the place of another.
        """
        opening = _Opening(self, url, model_name, is_signed)
        found = await opening.in_thread(opening.find, Found.discard)
        try:
            key = await self._key_for(found.sealed, wait) if found.sealed else None
        except BaseException:
            found.discard()
            raise
        return await opening.in_thread(lambda: opening.unpack(found, key), ModelDir.forget)

    def sweep(self) -> int:
        """Remove unpacked archives that a crashed server of ours left; says how many."""
        return sum(UnpackArea(root).sweep() for root in self.unpack_roots())

    def unpack_roots(self) -> list[Path]:
        """Every directory below which archives may be unpacked."""
        return list(dict.fromkeys([self.area.root, *self.memory_place.roots()]))

    def startup_urls(self, load_models: str | Sequence[str] | None) -> list[tuple[str | None, str]]:
        """The (name, url) pairs that `load_models` or `--models` ask for; no name is None."""
        items = load_models.split(",") if isinstance(load_models, str) else load_models or []
        items = [item.strip() for item in items if item.strip()]
        # TorchServe: "all" counts only where it is the whole value
        if len(items) == 1 and items[0].lower() == "all":
            return [(None, name) for name in self._entries()]
        pairs = [_split_name(item) for item in items]
        return [(name, url) for name, url in pairs if url]

    def check_redirect(self, url: str) -> None:
        """Raise like a registration would for this url."""
        check_not_relative(url)
        self.check_allowed(url)

    def check_allowed(self, url: str) -> None:
        """Raise UrlNotAllowed unless one of `allowed_urls` matches all of `url`."""
        if not any(re.fullmatch(allowed, url, re.IGNORECASE) for allowed in self.allowed_urls):
            raise UrlNotAllowed(url)

    async def _key_for(self, sealed: SealedFile | JweFile, wait: KeyWait | None) -> bytearray:
        if wait is not None:
            known = sealed.header if isinstance(sealed, SealedFile) else None
            wait.begin(known.model_name if known else "", known.model_version if known else "")
        key_id = sealed.key_id or self.default_key_id
        if not key_id:
            advice = f"{sealed.name} does not name it: set CONFIDENTIAL_RESOURCE_ID."
            raise KeyUnavailable("", "not configured", advice)
        if self.key_source is None:
            raise KeyUnavailable(key_id, "not configured", "Set key_source in config.properties.")
        while True:
            try:
                return await self.key_source.key_for(key_id)
            except KeyUnavailable as error:
                if wait is None or not error.may_be_refused_no_longer:
                    raise
                await wait.pause(error)

    def _entries(self) -> list[str]:
        if self.root is None or not self.root.is_dir():
            return []
        return sorted(
            entry.name
            for entry in self.root.iterdir()
            if not entry.name.startswith(".")
            and (entry.is_dir() or entry.name.endswith(ARCHIVE_SUFFIXES))
        )


def check_not_relative(url: str) -> None:
    """Raise ArchiveNotFound for two dots, also where only percent signs hide them.

    `https://host/ours/.*` allows `https://host/ours/%2e%2e/theirs` by its letters, and the host
    may read it as `https://host/theirs`, after proxies that decoded once more.
    """
    match = _URL.fullmatch(url)
    path = match["path"] if match else ""
    for _ in range(MAX_DECODINGS):
        decoded = unquote(path)
        if decoded == path:
            break
        path = decoded
    else:
        path = ".."  # nobody needs that many: something is hidden there
    if ".." in url or ".." in path:
        raise ArchiveNotFound(f"Relative path is not allowed in url: {url}")


def default_model_name(url: str) -> str:
    """The name of a model loaded at startup when neither the user nor the manifest gives one."""
    name = archive_name(url).removesuffix(SEALED_SUFFIX).removesuffix(JWE_SUFFIX)
    if ".mar" in name or ".model" in name:
        name = name[: name.rindex(".")]
    return re.sub(r"\W", "_", name, flags=re.ASCII)


def _split_name(item: str) -> tuple[str | None, str]:
    name, equals, url = item.partition("=")
    # the first "=" of a presigned url is no end of a name
    if not equals or "://" in name:
        return None, item
    return name.strip() or None, url.strip()


def archive_name(url: str) -> str:
    """The name in the model store of what a url leads to; a query is no part of it."""
    match = _URL.fullmatch(url)
    path = match["path"] if match else url
    return path.rstrip("/").rpartition("/")[2]


class _Abandoned(ModelStoreError):
    """Nobody waits for this archive any more."""


class _Opening:
    """One call of `ModelStore.open`: what blocks of it, to be done in threads."""

    def __init__(
        self, store: ModelStore, url: str, model_name: str | None, is_signed: bool
    ) -> None:
        self.store = store
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
        url = _URL.fullmatch(self.url)
        if url is None:
            return self._recognise(self._find(root), downloaded=None)
        self.store.check_allowed(self.url)
        port = _PORT.fullmatch(url["place"])
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
            self.store.max_download_bytes,
            self.store.check_redirect,
            self._check_abandoned,
            reach=self.store.reach,
            private=[UnpackArea(place).models for place in self.store.unpack_roots()],
            sign=self.store.signer.headers if self.is_signed else None,
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
        if self.store.root is None:
            raise ArchiveNotFound("Model store has not been configured.")
        if "\0" in self.url:
            raise InvalidUrl("The url holds a NUL character, which no path and no host can.")
        return self.store.root

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
            trust = self.store.trust
            is_sealed = found.sealed is not None
            trust.check_is_sealed(path.name, is_sealed=is_sealed, has_digest=path.is_file())
            if is_sealed:
                self.store.memory_place.area()
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
            return PinnedFile(archive, is_digest_first=self.store.trust.models is not None)
        except OSError as error:
            log.warning("cannot open %s: %s", archive.name, error)
            raise UnreadableArchive(self.url) from error

    def _open_archive(self, found: Found, contents: Contents | None) -> ModelDir:
        area = self.store.memory_place.area() if found.sealed else self.store.area
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
        store, check_abandoned = self.store, self._check_abandoned
        with contents.verified(check_abandoned) as reader:
            if found.header is None:
                store.trust.check_digest(contents.name, contents.sha256)
            archive_file = packed(contents, reader)
            room = partial(check_room, directory) if found.sealed else None
            unpack(archive_file, self.url, directory, store.limits, check_abandoned, room)

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
            self.store.trust.check_contents(name, version, contents.sha256)
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
