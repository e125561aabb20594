"""Snapshots: the configuration and the models of a server, for its next start.

The format is TorchServe's, so that either can be started from the other's: a properties file of
what was set, and the models as JSON in the key `model_snapshot`.
"""

import json
import os
import uuid
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Literal, Protocol

from torchkeep.runtime.properties import decode_properties, format_property

Occasion = Literal["startup", "snapshot", "shutdown"]

_NUMBERS = {  # JSON name, and its value where an older snapshot has none
    "minWorkers": None,
    "maxWorkers": None,
    "batchSize": None,
    "maxBatchDelay": None,
    "responseTimeout": 120,
    "startupTimeout": 120,
}


class SnapshotStore(Protocol):
    """Where snapshots are kept. `save` is called from threads, perhaps from several at a time.

    What `save` raises is logged; what `last` raises stops the start.
    """

    def __str__(self) -> str:
        return type(self).__name__

    @abstractmethod
    def save(self, name: str, text: str) -> None:
        """Keep the whole of a snapshot, or nothing of it."""
        ...

    @abstractmethod
    def last(self) -> tuple[str, str] | None:
        """Name and text of the snapshot whose name is the largest; None before the first."""
        ...


@dataclass(frozen=True, slots=True)
class FileSnapshots(SnapshotStore):
    """A directory with a file for each, as TorchServe keeps them."""

    directory: Path

    def __str__(self) -> str:
        return str(self.directory)

    def save(self, name: str, text: str) -> None:
        """The whole file, or none: a crash leaves the snapshots that were there."""
        self.directory.mkdir(parents=True, exist_ok=True)
        partial = self.directory / f".{uuid.uuid4().hex}.part"
        try:
            # For the user alone: the settings may hold the password of a key store.
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
            with open(os.open(partial, flags, 0o600), "w", encoding="ascii") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            partial.replace(self.directory / name)
        finally:
            partial.unlink(missing_ok=True)

    def last(self) -> tuple[str, str] | None:
        names = [path.name for path in self.directory.glob("[0-9]*-*.cfg")]
        if not names:
            return None
        name = max(names, key=lambda name: name.partition("-")[0])
        return name, decode_properties((self.directory / name).read_bytes())


@dataclass(frozen=True, slots=True)
class SavedModel:
    """One version of a model as it was served."""

    name: str
    version: str
    archive: str  # the file or directory in the model store
    is_default: bool
    min_workers: int
    max_workers: int
    batch_size: int
    max_batch_delay_ms: int
    response_timeout_s: int
    startup_timeout_s: int
    runtime: str
    parallel_level: int = 0


def snapshot_name(now: datetime, occasion: Occasion) -> str:
    """The latest one is the one with the largest number, in local time."""
    return f"{now:%Y%m%d%H%M%S}{now.microsecond // 1000:03d}-{occasion}.cfg"


def format_snapshot(
    name: str, now: datetime, settings: Mapping[str, str], models: Sequence[SavedModel]
) -> str:
    """The text of one snapshot; `settings` are the keys that were set, as texts."""
    versions: dict[str, dict[str, Any]] = {}
    for model in models:
        versions.setdefault(model.name, {})[model.version] = {
            "defaultVersion": model.is_default,
            "marName": model.archive,
            "minWorkers": model.min_workers,
            "maxWorkers": model.max_workers,
            "batchSize": model.batch_size,
            "maxBatchDelay": model.max_batch_delay_ms,
            "responseTimeout": model.response_timeout_s,
            "startupTimeout": model.startup_timeout_s,
            "runtimeType": model.runtime,
        }
        if model.parallel_level > 0:
            versions[model.name][model.version]["parallelLevel"] = model.parallel_level
    saved = {
        "name": name,
        "modelCount": len(models),
        "created": int(now.timestamp() * 1000),
        "models": versions,
    }
    text = json.dumps(saved, indent=2, ensure_ascii=False)
    pairs = {**settings, "model_snapshot": text}
    head = f"#Saving snapshot\n#{now:%a %b %d %H:%M:%S %Y}\n"
    return head + "".join(format_property(key, value) for key, value in pairs.items())


def parse_models(text: str) -> list[SavedModel]:
    """The models of `model_snapshot`; raises ValueError that says what is wrong with it."""
    try:
        saved = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"Malformed JSON: {error}") from error
    models = saved.get("models", {}) if isinstance(saved, dict) else None
    if not isinstance(models, dict):
        raise ValueError("Not an object of models")
    found = []
    for name, versions in models.items():
        if not isinstance(versions, dict):
            raise ValueError(f"{name} is no object of versions")
        found += [_saved_model(name, version, fields) for version, fields in versions.items()]
    return found


def _saved_model(name: str, version: str, fields: Any) -> SavedModel:
    if not isinstance(fields, dict):
        raise ValueError(f"{name}.{version} is no object of settings")
    archive = fields.get("marName")
    if not isinstance(archive, str) or not archive or Path(archive).name != archive:
        raise ValueError(f"{name}.{version}.marName is no file name")
    numbers: list[int] = []
    for key, default in _NUMBERS.items():
        number = fields.get(key, default)
        if type(number) is not int:
            raise ValueError(f"{name}.{version}.{key} is no whole number")
        numbers.append(number)
    min_workers, max_workers, batch_size, delay_ms, response_timeout_s, startup_timeout_s = numbers
    return SavedModel(
        name,
        version,
        archive,
        fields.get("defaultVersion") is True,
        min_workers,
        max_workers,
        batch_size,
        delay_ms,
        response_timeout_s,
        startup_timeout_s,
        str(fields.get("runtimeType") or "python"),
    )
