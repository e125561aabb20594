"""What can go wrong with archives at rest. Each text is the one the management API answers."""

from typing import Literal


class ModelStoreError(Exception):
    """The root of every error raised on purpose here; `str(error)` may be shown to a client."""


class ArchiveNotFound(ModelStoreError):
    """Nothing to open under this url: empty, relative, missing, or no store to look in."""

    @classmethod
    def at(cls, url: str) -> "ArchiveNotFound":
        """The usual text; the others are said where they are raised."""
        return cls(f"Model not found at: {url}")


class UrlNotAllowed(ModelStoreError):
    """The url, or one it redirects to, is none that the configuration or we ourselves allow."""

    def __init__(self, url: str, reason: str = "does not match any allowed URL(s)") -> None:
        super().__init__(f"Given URL {url} {reason}")


class InvalidUrl(ModelStoreError):
    """No archive can ever be under this url, whatever is configured."""


class DownloadFailed(ModelStoreError):
    """The url is allowed but could not be fetched; the reason is the cause, for the log only.

    Else whoever registers could learn who listens where, from this machine's point of view.
    """

    def __init__(self, url: str, advice: str = "the log of the server says why") -> None:
        super().__init__(f"Failed to download archive from: {url} : {advice}")


class SigningImpossible(ModelStoreError):
    """A download is to be signed, and this server cannot; the advice says what it lacks."""

    def __init__(self, advice: str) -> None:
        super().__init__(f"s3_sse_kms asks for a signed download: {advice}.")


class FileAlreadyExists(ModelStoreError):
    """A download would replace a file of the model store."""

    def __init__(self, file_name: str) -> None:
        super().__init__(f"Model file already exists {file_name}")


class InvalidArchive(ModelStoreError):
    """The archive can be read, but we will not or cannot use what it holds."""


class UnreadableArchive(ModelStoreError):
    """The archive is damaged, or could not be written to disk; more is in the cause."""

    def __init__(self, url: str, reason: str = "the log of the server says why") -> None:
        super().__init__(f"Failed to save model: {url} : {reason}")


class ArchiverError(ModelStoreError):
    """The archiver cannot write the archive that was asked for."""


class PartMissing(ArchiverError):
    """A part of the archive is no file."""


KeyStep = Literal[
    "unreachable",
    "attestation refused",
    "policy denied",
    "resource missing",
    "wrong key",
    "not configured",
]


class KeyUnavailable(ModelStoreError):
    """The key of a sealed archive could not be had; the text names key and step, never a key."""

    def __init__(
        self, key_id: str, step: KeyStep, advice: str, *, is_temporary: bool = False
    ) -> None:
        super().__init__(f"No key {key_id or 'for the archive'}: {step}. {advice}")
        self.key_id = key_id
        self.step: KeyStep = step
        self.is_temporary = is_temporary  # nobody refused it: asking again may help by itself

    @property
    def may_be_refused_no_longer(self) -> bool:
        """Whether the key can come without a change here: brokers get new policies and keys."""
        return self.step not in ("wrong key", "not configured")


class SealBroken(InvalidArchive):
    """A sealed archive is not as its owner wrote it, or was never one; `reason` says where."""

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(f"{name}: {reason}.")
        self.reason = reason


class Untrusted(InvalidArchive):
    """The archive may be sound, but the configuration does not let this server use it."""


class NoRoomInMemory(ModelStoreError):
    """A sealed archive cannot be unpacked: no file system in memory, or not enough of it."""


class SealingError(ModelStoreError):
    """What was asked for cannot be sealed, or the answer has nowhere to go."""
