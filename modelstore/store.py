"""The model store: from the url of a register call to an unpacked, checked model directory."""

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from torchkeep.modelstore.archive import Limits
from torchkeep.modelstore.errors import KeyUnavailable
from torchkeep.modelstore.found import JWE_SUFFIX, SEALED_SUFFIX, Found
from torchkeep.modelstore.jwe import JweFile
from torchkeep.modelstore.keys import KeySource
from torchkeep.modelstore.memory_place import MemoryPlace
from torchkeep.modelstore.model_url import split_name
from torchkeep.modelstore.opening import MAX_DOWNLOAD_BYTES, ModelDir, Opening, OpeningRules
from torchkeep.modelstore.reach import Reach
from torchkeep.modelstore.s3_signing import S3Signer
from torchkeep.modelstore.sealed import SealedFile
from torchkeep.modelstore.trust import Trust
from torchkeep.modelstore.unpack_area import UnpackArea

ARCHIVE_SUFFIXES = (".mar", ".model", ".tar.gz", SEALED_SUFFIX, JWE_SUFFIX)


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
        self.key_source = key_source
        self._default_key_id = default_key_id  # of archives that do not name their key
        self.rules = OpeningRules(
            root,
            list(allowed_urls),
            area=UnpackArea(unpack_root),
            memory_place=memory_place or MemoryPlace(None, unpack_root),
            trust=trust or Trust(),
            reach=reach or Reach(),
            signer=signer or S3Signer.from_environment({}),
            limits=limits or Limits(),
            max_download_bytes=max_download_bytes,
        )

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
        opening = Opening(self.rules, url, model_name, is_signed)
        found = await opening.in_thread(opening.find, Found.discard)
        try:
            key = await self._key_for(found.sealed, wait) if found.sealed else None
        except BaseException:
            found.discard()
            raise
        return await opening.in_thread(lambda: opening.unpack(found, key), ModelDir.forget)

    def sweep(self) -> int:
        """Remove unpacked archives that a crashed server of ours left; says how many."""
        return sum(UnpackArea(root).sweep() for root in self.rules.unpack_roots())

    def startup_urls(self, load_models: str | Sequence[str] | None) -> list[tuple[str | None, str]]:
        """The (name, url) pairs that `load_models` or `--models` ask for; no name is None."""
        items = load_models.split(",") if isinstance(load_models, str) else load_models or []
        items = [item.strip() for item in items if item.strip()]
        # TorchServe: "all" counts only where it is the whole value
        if len(items) == 1 and items[0].lower() == "all":
            return [(None, name) for name in self._entries()]
        pairs = [split_name(item) for item in items]
        return [(name, url) for name, url in pairs if url]

    async def _key_for(self, sealed: SealedFile | JweFile, wait: KeyWait | None) -> bytearray:
        if wait is not None:
            known = sealed.header if isinstance(sealed, SealedFile) else None
            wait.begin(known.model_name if known else "", known.model_version if known else "")
        key_id = sealed.key_id or self._default_key_id
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
        root = self.rules.root
        if root is None or not root.is_dir():
            return []
        return sorted(
            entry.name
            for entry in root.iterdir()
            if not entry.name.startswith(".")
            and (entry.is_dir() or entry.name.endswith(ARCHIVE_SUFFIXES))
        )
