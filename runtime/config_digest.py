"""The configuration as a client can check it: one hash of all that is in effect.

docs/attestation.md fixes the bytes: SHA-256 of canonical JSON, of every key of
config.properties that has an effect (defaults too), and of the sandbox that the server has here.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, fields
from typing import Any

from torchkeep.runtime.config import Config
from torchkeep.runtime.snapshot import SavedModel


def config_document(config: Config, sandbox: Mapping[str, Any]) -> bytes:
    """What is hashed. Passwords are not in it: whoever may read a hash may also guess."""
    settings = {
        one.name: getattr(config, one.name)
        for one in fields(config)
        if "key" in one.metadata and one.metadata["key"].has_effect and one.repr
    }
    document = {"settings": settings, "sandbox": dict(sandbox)}
    text = json.dumps(
        document, sort_keys=True, separators=(",", ":"), ensure_ascii=False, default=_plain
    )
    return text.encode()


def config_digest(config: Config, sandbox: Mapping[str, Any]) -> bytes:
    """32 bytes."""
    return hashlib.sha256(config_document(config, sandbox)).digest()


def _plain(value: Any) -> Any:
    """An address, a path: as it stands in the file."""
    return asdict(value) if isinstance(value, SavedModel) else str(value)
