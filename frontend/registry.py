"""The models being served: name to versions, and which version is the default."""

import asyncio
import logging
import re
from collections.abc import Callable
from dataclasses import replace

from torchkeep.frontend.dependencies import Installer
from torchkeep.frontend.errors import (
    BadRequest,
    ConflictStatus,
    DefaultVersionNotFound,
    InstallFailed,
    InvalidModel,
    InvalidModelVersion,
    ModelNotFound,
    ModelVersionNotFound,
    ModelWaits,
    NoVirtualEnvironment,
    WorkerInitializationFailed,
)
from torchkeep.frontend.model_events import ModelEvents
from torchkeep.frontend.model_spec import ModelDefaults, ModelSpec, Registration, model_spec
from torchkeep.frontend.served_model import ServedModel, WorkerGround
from torchkeep.frontend.waiting_model import WaitingModel
from torchkeep.modelstore.errors import ModelStoreError
from torchkeep.modelstore.manifest import RUNTIMES, leaves_directory
from torchkeep.modelstore.opening import ModelDir
from torchkeep.modelstore.store import ModelStore
from torchkeep.runtime.snapshot import SavedModel

log = logging.getLogger(__name__)

REGISTER_ERRORS = (
    InvalidModel,
    ConflictStatus,
    BadRequest,
    InstallFailed,
    NoVirtualEnvironment,
    WorkerInitializationFailed,
)
KEY_PATIENCE_S = 1.0  # for the key of a sealed model, before the server starts without it


class ModelRegistry:
    """Opens archives into served models, and finds them again by name and version."""

    def __init__(
        self,
        store: ModelStore,
        ground: WorkerGround,
        defaults: ModelDefaults,
        installer: Installer,
        events: ModelEvents | None = None,
    ) -> None:
        self._store = store
        self._events = events
        self._ground = ground
        self._defaults = defaults
        self._installer = installer
        self._models: dict[str, dict[str, ServedModel]] = {}
        self._default: dict[str, str] = {}
        self._startup_names: set[str] = set()
        self._waiting: dict[tuple[str, str], WaitingModel] = {}  # by name and version

    def get(self, name: str, version: str | None = None) -> ServedModel:
        """A version of a model, or its default one.

        Raises ModelNotFound, ModelVersionNotFound, ModelWaits.
        """
        versions = self._models.get(name)
        if versions is not None:
            served = versions.get(self._default[name] if version is None else version)
            if served is not None:
                return served
        if self.is_waiting(name, version):
            raise ModelWaits(name)
        if versions is None:
            raise ModelNotFound(name)
        raise ModelVersionNotFound(name, version or "")

    def is_waiting(self, name: str, version: str | None = None) -> bool:
        """Whether `get` finds nothing but a version that waits for its key."""
        versions = self._models.get(name, {})
        return (not versions or version not in (None, *versions)) and bool(
            self.waiting(name, version)
        )

    def waiting(self, name: str, version: str | None = None) -> list[WaitingModel]:
        """The versions of a model that wait for their keys, or the one that is asked for."""
        return [
            one
            for (other, its_version), one in self._waiting.items()
            if other == name and version in (None, its_version)
        ]

    def urls(self) -> list[tuple[str, str]]:
        """Names and where their default versions come from, those that wait included."""
        urls = {name: waiting.url for (name, _), waiting in self._waiting.items()}
        urls |= {name: self.get(name).spec.url for name in self._models}
        return sorted(urls.items())

    @property
    def only_startup_name(self) -> str | None:
        """The name of the model that was loaded at startup, where it was exactly one."""
        return next(iter(self._startup_names)) if len(self._startup_names) == 1 else None

    def versions(self, name: str) -> list[ServedModel]:
        """Every version of a model that is served; raises ModelNotFound."""
        if name not in self._models and not self.waiting(name):
            raise ModelNotFound(name)
        return list(self._models.get(name, {}).values())

    def all(self) -> list[ServedModel]:
        return [served for versions in self._models.values() for served in versions.values()]

    def is_healthy(self) -> bool:
        """TorchServe's ping rule: the default versions have as many healthy workers as asked.

        A model that waits for its key has none.
        """
        return self._defaults_are(lambda one: one.healthy_workers >= one.spec.min_workers)

    def is_ready(self) -> bool:
        """Whether every default version has a worker that has loaded it, unless none was asked for.

        A model that waits for its key has none.
        """
        return self._defaults_are(lambda one: one.is_ready or one.spec.min_workers == 0)

    def _defaults_are(self, fit: Callable[[ServedModel], bool]) -> bool:
        return not self._waiting and all(fit(self.get(name)) for name in self._models)

    def set_default(self, name: str, version: str) -> None:
        if name not in self._models:
            raise ModelNotFound(name)
        if version not in self._models[name]:
            raise DefaultVersionNotFound(name, version)
        self._default[name] = version

    async def register(
        self, registration: Registration, wait: WaitingModel | None = None
    ) -> ServedModel:
        """Open the archive and add the model; the caller starts `spec.min_workers` workers.

        With `wait` a sealed archive waits for a key that cannot be had just now.

        Raises a ModelStoreError, InvalidModel, BadRequest, ConflictStatus, InstallFailed or
        NoVirtualEnvironment; then nothing of the archive is left.
        """
        runtime = registration.runtime
        if runtime is not None and runtime not in RUNTIMES:
            raise BadRequest(f"Invalid RuntimeType value: {runtime}")
        _check_printable("model_name", registration.model_name)
        _check_printable("handler", registration.handler)
        if leaves_directory((registration.handler or "").partition(":")[0]):
            raise BadRequest(
                f"Parameter handler leaves the model directory: {registration.handler}"
            )
        model_dir = await self._store.open(
            registration.url, registration.model_name, wait, is_signed=registration.s3_sse_kms
        )
        try:
            spec = model_spec(
                registration, model_dir, self._defaults, self._ground.gpus, self._startup_names
            )
            self._check_new(spec)
            if spec.device_type == "gpu" and spec.parallel_level > self._ground.gpus.count:
                raise WorkerInitializationFailed(spec.name, spec.parallel_level)
            # Before its packages are installed, which may run code that it brought.
            if self._events is not None:
                await self._events.record(spec.name, spec.version, model_dir.digest)
            # TorchServe keeps a model whose packages could not be installed, without workers.
            found = await self._installer.prepare(spec.name, spec.worker_runtime, model_dir)
            self._check_new(spec)  # others may have been quicker
        except BaseException:
            model_dir.forget()
            raise
        spec = replace(spec, interpreter=found.interpreter, libraries=found.libraries)
        _warn_of(spec.name, model_dir)
        served = ServedModel(spec, model_dir, self._ground)
        self._models.setdefault(spec.name, {})[spec.version] = served
        self._default.setdefault(spec.name, spec.version)
        if registration.loaded_at_startup:
            self._startup_names.add(spec.name)
        # In the same moment: nobody shall see it twice, served and waiting.
        other = self._waiting.pop((spec.name, spec.version), None)
        if other is not None and other is not wait:
            await other.cancel()  # it came another way
        log.info("Model %s loaded.", spec.name)
        return served

    def _check_new(self, spec: ModelSpec) -> None:
        if spec.version in self._models.get(spec.name, {}):
            raise ConflictStatus(
                f"Model version {spec.version} is already registered for model {spec.name}"
            )

    async def unregister(self, name: str, version: str | None = None) -> None:
        """Answer the model's clients, end its workers, remove its files.

        Raises ModelNotFound, ModelVersionNotFound, InvalidModelVersion.
        """
        if self.is_waiting(name, version):
            for waiting in self.waiting(name, version):
                await waiting.cancel()
            return
        served = self.get(name, version)
        versions = self._models[name]
        if served.spec.version == self._default[name]:
            if len(versions) > 1:
                raise InvalidModelVersion(f"Cannot remove default version for model {name}")
            del self._default[name]
        del versions[served.spec.version]
        if not versions:
            del self._models[name]
            self._startup_names.discard(name)
        await served.close()
        served.model_dir.forget()
        log.info("Model %s unregistered.", name)

    def is_default(self, name: str, version: str) -> bool:
        return self._default.get(name) == version

    def all_waiting(self) -> list[WaitingModel]:
        return list(self._waiting.values())

    async def load_at_startup(self, name: str | None, url: str) -> ServedModel | None:
        """Register a model and begin to start its workers; a failure is logged, not raised.

        A sealed one whose key takes long is left to wait, and the server starts without it.
        """
        asked = Registration(
            url=url,
            model_name=name,
            initial_workers=self._defaults.workers_at_startup,
            loaded_at_startup=True,
        )
        return await self._load_or_wait(asked, None)

    async def restore(self, saved: SavedModel) -> ServedModel | None:
        """The same for a model of a snapshot, with the settings that it had."""
        asked = Registration(
            url=saved.archive,
            model_name=saved.name,
            runtime=saved.runtime,
            batch_size=saved.batch_size,
            max_batch_delay=saved.max_batch_delay_ms,
            initial_workers=saved.min_workers,
            response_timeout=saved.response_timeout_s,
            startup_timeout=saved.startup_timeout_s,
        )
        return await self._load_or_wait(asked, saved)

    async def _load_or_wait(
        self, asked: Registration, saved: SavedModel | None
    ) -> ServedModel | None:
        waiting = WaitingModel(asked.url, asked.initial_workers or 0, saved)
        loading = asyncio.create_task(self._load(asked, saved, waiting))
        begun = asyncio.create_task(waiting.begun.wait())
        await asyncio.wait({loading, begun}, return_when=asyncio.FIRST_COMPLETED)
        begun.cancel()
        if not loading.done():
            await asyncio.wait({loading}, timeout=KEY_PATIENCE_S)
        if loading.done():
            return await loading
        waiting.task = loading
        self._waiting[waiting.name, waiting.version] = waiting
        loading.add_done_callback(lambda _: self._forget(waiting))
        return None

    def _forget(self, waiting: WaitingModel) -> None:
        if self._waiting.get((waiting.name, waiting.version)) is waiting:
            del self._waiting[waiting.name, waiting.version]

    async def _load(
        self, asked: Registration, saved: SavedModel | None, waiting: WaitingModel
    ) -> ServedModel | None:
        try:
            served = await self.register(asked, waiting)
        except (ModelStoreError, *REGISTER_ERRORS) as error:
            # TorchServe starts without the model, and so do we.
            log.warning(
                "Failed to load model: %s: %s", without_query(asked.url), without_query(str(error))
            )
            return None
        if waiting.task is not None:
            log.warning("model %s waits no longer: its key has come", served.spec.name)
        if saved is None:
            served.begin_scale(served.spec.min_workers, served.spec.max_workers)
            return served
        served.begin_scale(saved.min_workers, saved.max_workers)
        if saved.is_default:
            self._default[served.spec.name] = served.spec.version
        return served

    async def close(self) -> None:
        """Unregister everything; what is still in flight has had its time in the drain."""
        for waiting in list(self._waiting.values()):
            await waiting.cancel()
        models, self._models, self._default = self.all(), {}, {}
        for served in models:
            await served.close(grace_s=0)


def _check_printable(parameter: str, value: str | None) -> None:
    """As in a manifest: such a name would break the lines of a log."""
    if value and not value.isprintable():
        raise BadRequest(f"Parameter {parameter} holds control characters: {value!r}")


def _warn_of(name: str, model_dir: ModelDir) -> None:
    """Log what is ignored of a model's configuration; of a sealed one it would quote a secret."""
    warnings = model_dir.config.warnings
    if model_dir.sealed and warnings:
        log.warning(
            "model %s: %d settings of its configuration file are ignored, and not told because "
            "it is sealed: its owner sees which by serving the archive unsealed",
            name,
            len(warnings),
        )
        return
    for warning in warnings:
        log.warning("model %s: %s", name, warning)


def without_query(text: str) -> str:
    """A text with the queries of its urls left out: they may hold a token."""
    return re.sub(r"(?<=\S)\?\S*", "?...", text)
