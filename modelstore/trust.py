"""Which archives this server may serve: `require_sealed_models` and `trusted_models`.

The model store belongs to somebody else, who can put older archives back and restart us. So
nothing is remembered there, or anywhere: what is trusted is in the configuration, which is
measured with the server. An entry either names the one archive by its digest, or the owner
whose signature counts together with the least `release` that is not too old.
"""

import base64
import binascii
import re
from collections.abc import Mapping
from dataclasses import dataclass

from torchkeep.modelstore.errors import Untrusted
from torchkeep.modelstore.seal_header import DIGEST_BYTES, OWNER_BYTES, SealHeader

_DIGEST = re.compile(r"sha256:([0-9a-fA-F]{64})")
_OWNER = re.compile(r"ed25519:([A-Za-z0-9+/_-]{43}=?);min-release=([0-9]{1,16})")
FORMS = "sha256:<digest of the archive> or ed25519:<owner's public key>;min-release=<number>"


@dataclass(frozen=True, slots=True)
class TrustedDigest:
    """One archive and no other, sealed or not."""

    sha256: bytes


@dataclass(frozen=True, slots=True)
class TrustedOwner:
    """Whatever this owner sealed and signed, unless it is older."""

    public_key: bytes
    min_release: int


Trusted = TrustedDigest | TrustedOwner
TrustedModels = Mapping[tuple[str, str], Trusted]  # by name and version


@dataclass(frozen=True, slots=True)
class Trust:
    """What the configuration says; `models` is None where it trusts every archive."""

    is_seal_required: bool = False
    models: TrustedModels | None = None

    def check_is_sealed(self, name: str, *, is_sealed: bool, has_digest: bool) -> None:
        """Before an archive is opened. `has_digest` is False for an unpacked directory."""
        if self.is_seal_required and not is_sealed:
            raise Untrusted(f"{name} is not sealed, and require_sealed_models=true.")
        if self.models is not None and not has_digest:
            raise Untrusted(f"{name} is a directory, which trusted_models cannot vouch for.")

    def check_header(self, header: SealHeader) -> None:
        """Before the key is asked for. What the header says is proved later, by the key."""
        if self.models is None:
            return
        model = f"{header.model_name} {header.model_version}"
        match self.models.get((header.model_name, header.model_version)):
            case None:
                raise Untrusted(f"trusted_models has no model {model}.")
            case TrustedDigest(sha256):
                if header.plaintext_sha256 != sha256:
                    raise Untrusted(f"Model {model} is another archive than trusted_models has.")
            case TrustedOwner(public_key, min_release):
                if header.owner != public_key:
                    signer = "somebody else" if header.owner else "nobody"
                    raise Untrusted(
                        f"Model {model} is signed by {signer}, not by the owner "
                        "whom trusted_models has."
                    )
                if header.release < min_release:
                    raise Untrusted(
                        f"Model {model} is release {header.release}, older than "
                        f"min-release={min_release} in trusted_models."
                    )

    def check_digest(self, name: str, sha256: bytes) -> None:
        """Before an archive without a header of ours is unpacked."""
        if self.models is not None and TrustedDigest(sha256) not in self.models.values():
            raise Untrusted(f"{name} is none of the archives that trusted_models has.")

    def check_contents(self, model_name: str | None, model_version: str, sha256: bytes) -> None:
        """That an archive without a header of ours is the model it was trusted as."""
        if self.models is None:
            return
        if self.models.get((model_name or "", model_version)) != TrustedDigest(sha256):
            raise Untrusted(
                f"The archive is model {model_name} {model_version}, "
                "for which trusted_models has another one or none."
            )


def parse_trusted_models(entries: Mapping[str, Mapping[str, str]]) -> TrustedModels:
    """The entries of the configuration; raises ValueError that names a bad one."""
    return {
        (name, version): _parse_entry(f"{name} {version}", text)
        for name, versions in entries.items()
        for version, text in versions.items()
    }


def parse_owner(text: str) -> bytes:
    """The base64 of an Ed25519 public key; raises ValueError."""
    try:
        padded = text.translate(str.maketrans("-_", "+/")).rstrip("=") + "="
        key = base64.b64decode(padded, validate=True)
    except binascii.Error as error:
        raise ValueError("no base64") from error
    if len(key) != OWNER_BYTES:
        raise ValueError(f"{len(key)} bytes where {OWNER_BYTES} are due")
    return key


def _parse_entry(model: str, text: str) -> Trusted:
    if match := _DIGEST.fullmatch(text):
        digest = bytes.fromhex(match[1])
        assert len(digest) == DIGEST_BYTES
        return TrustedDigest(digest)
    if match := _OWNER.fullmatch(text):
        return TrustedOwner(parse_owner(match[1]), int(match[2]))
    raise ValueError(f"{model}: {text!r:.100} is not {FORMS}")
