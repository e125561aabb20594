"""The model store: from the url of a register call to an unpacked, checked model directory."""

import asyncio
import logging
import re
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from torchkeep.modelstore.archive import Limits, unpack
from torchkeep.modelstore.download import download
from torchkeep.modelstore.errors import (
    ArchiveNotFound,
    DownloadFailed,
    ModelStoreError,
    UnreadableArchive,
    UrlNotAllowed,
)
from torchkeep.modelstore.keys import KeySource
from torchkeep.modelstore.manifest import Manifest, read_manifest
from torchkeep.modelstore.model_config import ModelConfig, read_model_config
from torchkeep.modelstore.unpack_area import UnpackArea, UnpackDir

log = logging.getLogger(__name__)

ARCHIVE_SUFFIXES = (".mar", ".model", ".tar.gz")
MAX_DOWNLOAD_BYTES = 64 << 30
# Not urlsplit, which drops some characters and raises on others.
_URL = re.compile(
    r"(file|https?)://[^/?#]*(?P<path>[^?#]*)(?P<query>.*)", re.IGNORECASE | re.DOTALL
)


@dataclass(frozen=True, slots=True)
class ModelDir:
    """An open archive. Whoever opened it closes it.

    `path` is the worker's cwd and `model_dir`: the unpacked files, or a link to the directory
    of an archive that came unpacked.
    """

    url: str
    path: Path
    manifest: Manifest
    config: ModelConfig
    unpacked: UnpackDir
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


class ModelStore:
    """Finds archives in one directory, or fetches them into it, and opens them."""

    def __init__(
        self,
        root: Path | None,
        allowed_urls: Sequence[str],
        unpack_root: Path,
        *,
        key_source: KeySource | None = None,
        limits: Limits | None = None,
        max_download_bytes: int = MAX_DOWNLOAD_BYTES,
    ) -> None:
        self.root = root
        self.allowed_urls = list(allowed_urls)
        self.area = UnpackArea(unpack_root)
        self.key_source = key_source
        self.limits = limits or Limits()
        self.max_download_bytes = max_download_bytes

    async def open(self, url: str) -> ModelDir:
        """Find, unpack and check the archive; leaves nothing behind when it raises."""
        opening = _Opening(self, url)
        work = asyncio.get_running_loop().run_in_executor(None, opening.run)
        try:
            return await asyncio.shield(work)
        except asyncio.CancelledError:
            # The thread cannot be cancelled: it stops at its next look, or its result is closed.
            opening.abandoned.set()
            work.add_done_callback(_close_unwanted)
            raise

    def sweep(self) -> int:
        """Remove unpacked archives that a crashed server of ours left; says how many."""
        return self.area.sweep()

    def startup_urls(self, load_models: str | Sequence[str] | None) -> list[tuple[str | None, str]]:
        """The (name, url) pairs that `load_models` or `--models` ask for; no name is None."""
        items = load_models.split(",") if isinstance(load_models, str) else load_models or []
        items = [item.strip() for item in items if item.strip()]
        # TorchServe: "all" counts only where it is the whole value
        if len(items) == 1 and items[0].lower() == "all":
            return [(None, name) for name in self._entries()]
        pairs = [_split_name(item) for item in items]
        return [(name, url) for name, url in pairs if url]

    def check_allowed(self, url: str) -> None:
        """Raise UrlNotAllowed unless one of `allowed_urls` matches all of `url`."""
        if not any(re.fullmatch(allowed, url, re.IGNORECASE) for allowed in self.allowed_urls):
            raise UrlNotAllowed(url)

    def _entries(self) -> list[str]:
        if self.root is None or not self.root.is_dir():
            return []
        return sorted(
            entry.name
            for entry in self.root.iterdir()
            if not entry.name.startswith(".")
            and (entry.is_dir() or entry.name.endswith(ARCHIVE_SUFFIXES))
        )


def default_model_name(url: str) -> str:
    """The name of a model loaded at startup when neither the user nor the manifest gives one."""
    name = _last_component(url)
    if ".mar" in name or ".model" in name:
        name = name[: name.rindex(".")]
    return re.sub(r"\W", "_", name, flags=re.ASCII)


def _split_name(item: str) -> tuple[str | None, str]:
    name, equals, url = item.partition("=")
    # the first "=" of a presigned url is no end of a name
    if not equals or "://" in name:
        return None, item
    return name.strip() or None, url.strip()


def _last_component(url: str) -> str:
    match = _URL.fullmatch(url)
    path = match["path"] if match else url
    return path.rstrip("/").rpartition("/")[2]


def _close_unwanted(work: "asyncio.Future[ModelDir]") -> None:
    if not work.cancelled() and work.exception() is None:
        work.result().forget()


class _Abandoned(ModelStoreError):
    """Nobody waits for this archive any more."""


class _Opening:
    """One call of `ModelStore.open`, in a thread of its own."""

    def __init__(self, store: ModelStore, url: str) -> None:
        self.store = store
        self.url = url
        self.abandoned = threading.Event()

    def run(self) -> ModelDir:
        root = self._check_url()
        if not _URL.fullmatch(self.url):
            return self._open_archive(self._find(root), downloaded=None)
        self.store.check_allowed(self.url)
        name = _last_component(self.url)
        if not name.strip(".") or not name.isprintable():
            raise DownloadFailed(self.url)
        target = root / name
        download(
            self.url,
            target,
            self.store.max_download_bytes,
            self.store.check_allowed,
            self._check_abandoned,
        )
        try:
            return self._open_archive(target, downloaded=target)
        except BaseException:
            # TorchServe keeps the file, and the next attempt fails because it is there
            target.unlink(missing_ok=True)
            raise

    def _check_url(self) -> Path:
        """What TorchServe checks before it looks anywhere, in its order."""
        if not self.url:
            raise ArchiveNotFound("empty url")
        if ".." in self.url:
            raise ArchiveNotFound(f"Relative path is not allowed in url: {self.url}")
        if self.store.root is None:
            raise ArchiveNotFound("Model store has not been configured.")
        return self.store.root

    def _find(self, root: Path) -> Path:
        """The file or directory that a url without a scheme names."""
        # TorchServe: of a path to a file only the last component counts, in the model store; else
        # a directory may be anywhere. Our rule for two directories: a bare name is the store's.
        name = _last_component(self.url)
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

    def _open_archive(self, archive: Path, downloaded: Path | None) -> ModelDir:
        try:
            unpacked = self.store.area.create()
        except OSError as error:
            log.warning("cannot unpack %s: %s", archive.name, error)
            raise UnreadableArchive(self.url) from error
        try:
            path = self._fill(unpacked.path, archive)
            manifest = read_manifest(path)
            config = ModelConfig()
            if manifest.config_file is not None:
                config = read_model_config(path / manifest.config_file)
            self._check_abandoned()
            return ModelDir(self.url, path, manifest, config, unpacked, downloaded)
        except BaseException as error:
            unpacked.remove()
            if not isinstance(error, OSError | UnreadableArchive):
                raise
            log.warning("cannot unpack %s: %s", archive.name, error.__cause__ or error)
            raise UnreadableArchive(self.url) from error

    def _fill(self, directory: Path, archive: Path) -> Path:
        """Put the archive's files into `directory`; returns where they are."""
        if archive.is_file():
            unpack(archive, self.url, directory, self.store.limits, self._check_abandoned)
            return directory
        children = list(archive.iterdir())
        # TorchServe: a directory that holds nothing but a directory stands for that one
        if len(children) == 1 and children[0].is_dir():
            archive = children[0]
        link = directory / archive.name
        link.symlink_to(archive, target_is_directory=True)
        return link

    def _check_abandoned(self) -> None:
        if self.abandoned.is_set():
            raise _Abandoned("Nobody waits for this archive any more.")
