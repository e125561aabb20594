"""A sealed model of the configuration whose key has not come yet."""

import asyncio
import logging
from typing import Any

from torchkeep.frontend import worker_process
from torchkeep.modelstore.errors import KeyUnavailable
from torchkeep.modelstore.model_url import default_model_name
from torchkeep.runtime.snapshot import SavedModel

log = logging.getLogger(__name__)

BACKOFF_S = worker_process.BACKOFF_S[:10]  # between two attempts; the last, 55 s, repeats


class WaitingModel:
    """Not served and not healthy, but known: by its name, and by the reason why it waits.

    The store tells it what the sealed archive says of itself, and asks it how long to wait.
    """

    def __init__(self, url: str, workers: int = 0, saved: SavedModel | None = None) -> None:
        self.url = url
        self.workers = workers  # to be started
        self.saved = saved  # the snapshot that it comes from
        self.name = ""
        self.version = ""
        self.reason = "its key has been asked for, or it is being unpacked"
        self.task: asyncio.Task[Any] | None = None
        self.begun = asyncio.Event()  # the archive is found, and sealed
        self._attempts = 0

    def begin(self, model_name: str, model_version: str) -> None:
        """A sealed archive is found. KServe's do not say which model they hold."""
        self.name = model_name or default_model_name(self.url)
        self.version = model_version
        self.begun.set()

    async def pause(self, error: KeyUnavailable) -> None:
        """Wait before the key is asked for once more."""
        reason = str(error)
        if reason != self.reason:
            self.reason = reason
            log.warning("model %s waits for its key: %s", self.name, reason)
        delay_s = BACKOFF_S[min(self._attempts, len(BACKOFF_S) - 1)]
        self._attempts += 1
        await asyncio.sleep(delay_s)

    def describe(self) -> dict[str, Any]:
        """What there is to say of it, in the words of a described model."""
        return {
            "modelName": self.name,
            "modelVersion": self.version,
            "modelUrl": self.url,
            "loadedAtStartup": True,
            "notReady": self.reason,
            "workers": [],
        }

    async def cancel(self) -> None:
        """Give up; nothing of the archive is left open."""
        if self.task is not None:
            self.task.cancel()
            await asyncio.wait([self.task])
