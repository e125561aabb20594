"""Writes a snapshot whenever TorchServe would: after a start, after each change, at the end."""

import asyncio
import logging
import sys
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path

from torchkeep.frontend.registry import ModelRegistry
from torchkeep.frontend.served_model import ModelSpec
from torchkeep.frontend.waiting_model import WaitingModel
from torchkeep.runtime.command_line import TORCHSERVE_VERSION
from torchkeep.runtime.snapshot import (
    Occasion,
    SavedModel,
    format_snapshot,
    snapshot_name,
    write_atomically,
)

log = logging.getLogger(__name__)


class Snapshots:
    """`directory` is None where none are written; `given` are the settings to keep."""

    def __init__(
        self,
        directory: Path | None,
        given: Mapping[str, str],
        source: Path | None,
        registry: ModelRegistry,
    ) -> None:
        self._directory = directory
        self._registry = registry
        self._settings = {
            **given,
            # TorchServe: these are always there
            "version": TORCHSERVE_VERSION,
            "python": sys.executable,
            "number_of_gpu": given.get("number_of_gpu", "0"),
            "tsConfigFile": str(source or ""),
        }
        if "model_store" in given:
            self._settings.setdefault("workflow_store", given["model_store"])
        self._is_writable = True

    async def save(self, occasion: Occasion) -> None:
        """Write what is served now. Where that is not possible it is logged once, not raised."""
        if self._directory is None:
            return
        now = datetime.now()
        name = snapshot_name(now, occasion)
        models = [self._saved(model.spec) for model in self._registry.all()]
        # What has not got its key yet is to be there after the next start all the same.
        models += [self._saved_waiting(one) for one in self._registry.all_waiting() if one.version]
        text = format_snapshot(name, now, self._settings, models)
        try:
            await asyncio.to_thread(write_atomically, self._directory, name, text)
        except OSError as error:
            if self._is_writable:
                log.warning("snapshots cannot be written to %s: %s", self._directory, error)
            self._is_writable = False

    def _saved(self, spec: ModelSpec) -> SavedModel:
        return SavedModel(
            spec.name,
            spec.version,
            spec.url.rstrip("/").rpartition("/")[2],
            self._registry.is_default(spec.name, spec.version),
            spec.min_workers,
            spec.max_workers,
            spec.batch_size,
            spec.max_batch_delay_ms,
            spec.response_timeout_s,
            spec.startup_timeout_s,
            spec.runtime,
            spec.parallel_level,
        )

    def _saved_waiting(self, model: WaitingModel) -> SavedModel:
        """As the snapshot has it that it comes from; otherwise as it would begin."""
        if model.saved is not None:
            return model.saved
        spec = ModelSpec(
            model.name,
            model.version,
            model.url,
            handler="",
            min_workers=model.workers,
            max_workers=model.workers,
        )
        return self._saved(spec)
