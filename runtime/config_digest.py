"""The configuration as a client can check it: one hash of all that is in effect.

docs/attestation.md fixes the bytes: SHA-256 of canonical JSON, of every key of
config.properties that has an effect (defaults too), of the sandbox that the server has here, and
of the plugins that run in it, each with its hash or version.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields
from typing import Any

from torchkeep.runtime.canonical_json import canonical_json
from torchkeep.runtime.config import Config
from torchkeep.runtime.snapshot import SavedModel


def config_document(
    config: Config, sandbox: Mapping[str, Any], plugins: Sequence[str] = ()
) -> bytes:
    """What is hashed. Passwords are not in it: whoever may read a hash may also guess."""
    settings = {
        one.name: getattr(config, one.name)
        for one in fields(config)
        if "key" in one.metadata and one.metadata["key"].has_effect and one.repr
    }
    document = {"settings": settings, "sandbox": dict(sandbox), "plugins": sorted(plugins)}
    return canonical_json(document, _plain)


def config_digest(config: Config, sandbox: Mapping[str, Any], plugins: Sequence[str] = ()) -> bytes:
    """32 bytes."""
    return hashlib.sha256(config_document(config, sandbox, plugins)).digest()


def _plain(value: Any) -> Any:
    """An address, a path: as it stands in the file."""
    return asdict(value) if isinstance(value, SavedModel) else str(value)
