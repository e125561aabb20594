"""Writes a snapshot whenever TorchServe would: after a start, after each change, at the end."""

import asyncio
import logging
import sys
from collections.abc import Callable, Mapping
from datetime import datetime
from functools import partial
from pathlib import Path

from torchkeep.frontend.model_spec import ModelSpec
from torchkeep.frontend.registry import ModelRegistry
from torchkeep.frontend.side_thread import in_side_thread
from torchkeep.frontend.waiting_model import WaitingModel
from torchkeep.modelstore.model_url import archive_name
from torchkeep.runtime.command_line import TORCHSERVE_VERSION
from torchkeep.runtime.snapshot import (
    Occasion,
    SavedModel,
    SnapshotStore,
    format_snapshot,
    snapshot_name,
)

log = logging.getLogger(__name__)

SAVE_LIMIT_S = 5.0  # a store may be a database far away, and clients wait for it
MAX_SAVES = 8  # under way; more than that would only pile up


class Snapshots:
    """`store` is None where none are kept; `given` are the settings to keep."""

    def __init__(
        self,
        store: SnapshotStore | None,
        given: Mapping[str, str],
        source: Path | None,
        registry: ModelRegistry,
    ) -> None:
        self._store = store
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
        self._is_failing = False
        self._saving: set[asyncio.Task[None]] = set()

    async def save(self, occasion: Occasion) -> None:
        """Keep what is served now. Where that is not possible it is logged, not raised."""
        if self._store is None:
            return
        now = datetime.now()
        name = snapshot_name(now, occasion)
        models = [self._saved(model.spec) for model in self._registry.all()]
        # What has not got its key yet is to be there after the next start all the same.
        models += [self._saved_waiting(one) for one in self._registry.all_waiting() if one.version]
        text = format_snapshot(name, now, self._settings, models)
        if problem := await self._try_to_save(partial(self._store.save, name, text)):
            if not self._is_failing:  # once, until it works again
                log.warning("snapshots cannot be written to %s: %s", self._store, problem)
            self._is_failing = True
        else:
            self._is_failing = False

    async def _try_to_save(self, save: Callable[[], None]) -> str:
        """What went wrong, or nothing. One that takes too long goes on, and may still succeed."""
        if len(self._saving) >= MAX_SAVES:
            return f"{MAX_SAVES} others have not ended yet"
        saving = asyncio.ensure_future(in_side_thread(save))
        self._saving.add(saving)
        saving.add_done_callback(self._saving.discard)
        await asyncio.wait([saving], timeout=SAVE_LIMIT_S)
        if not saving.done():
            return f"no answer within {SAVE_LIMIT_S:.0f} s"
        error = saving.exception()
        return "" if error is None else f"{type(error).__name__}: {error}"

    def _saved(self, spec: ModelSpec) -> SavedModel:
        return SavedModel(
            spec.name,
            spec.version,
            archive_name(spec.url),
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
