"""The models being served: name to versions, and which version is the default."""

import asyncio
import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

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
from torchkeep.frontend.gpus import Gpus
from torchkeep.frontend.model_events import ModelEvents
from torchkeep.frontend.served_model import ModelSpec, ServedModel, WorkerGround
from torchkeep.frontend.waiting_model import WaitingModel
from torchkeep.modelstore.errors import ModelStoreError
from torchkeep.modelstore.manifest import MANIFEST_PATH, RUNTIMES, leaves_directory
from torchkeep.modelstore.store import ModelDir, ModelStore, default_model_name
from torchkeep.runtime.snapshot import SavedModel

log = logging.getLogger(__name__)

# TorchServe: these values of a query mean "not given", all others are taken as they are.
UNSET_BATCH_SIZE = -1
UNSET_BATCH_DELAY = -100

IPEX_WORTH_BYTES = 1 << 20  # of weights
UNSET_TIMEOUT = -1
UNLIMITED_S = 2**31 - 1  # Java's largest integer, which a description shows
REGISTER_ERRORS = (
    InvalidModel,
    ConflictStatus,
    BadRequest,
    InstallFailed,
    NoVirtualEnvironment,
    WorkerInitializationFailed,
)
KEY_PATIENCE_S = 1.0  # for the key of a sealed model, before the server starts without it


@dataclass(frozen=True, slots=True)
class Registration:
    """What a register call or the configuration asks for; None means: not given."""

    url: str
    model_name: str | None = None
    handler: str | None = None
    runtime: str | None = None
    batch_size: int | None = None
    max_batch_delay: int | None = None
    initial_workers: int | None = None
    response_timeout: int | None = None
    startup_timeout: int | None = None
    s3_sse_kms: bool = False  # the download is signed
    loaded_at_startup: bool = False


@dataclass(frozen=True, slots=True)
class ModelDefaults:
    """What the configuration says about models that say nothing themselves."""

    response_timeout_s: int = 120
    startup_timeout_s: int = 120
    job_queue_size: int = 100
    workers_at_register: int = 0
    workers_at_startup: int = 1
    handler: str | None = None
    envelope: str = ""
    models: Mapping[str, Mapping[str, Mapping[str, Any]]] = field(default_factory=dict)
    has_time_limits: bool = True


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
        if self._waiting:
            return False
        defaults = (self.get(name) for name in self._models)
        return all(served.healthy_workers >= served.spec.min_workers for served in defaults)

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
            spec = self._spec(registration, model_dir)
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

    def _spec(self, asked: Registration, model_dir: ModelDir) -> ModelSpec:
        manifest, config, defaults = model_dir.manifest, model_dir.config, self._defaults
        name = asked.model_name or manifest.model_name
        if not name and asked.loaded_at_startup:
            name = default_model_name(asked.url)
        if not name:
            raise InvalidModel(
                f"Model name is not defined. Neither model_name nor {MANIFEST_PATH} in the "
                "archive says one: is it packed by torch-model-archiver?"
            )
        version = manifest.model_version
        configured = defaults.models.get(name, {}).get(version, {})
        # TorchServe: with a config file in the archive, the timeouts of the API and of the
        # configuration are ignored.
        if manifest.config_file is not None and config.response_timeout_s is not None:
            response_timeout_s = config.response_timeout_s
        else:
            response_timeout_s = _positive(configured.get("responseTimeout")) or _given(
                asked.response_timeout, defaults.response_timeout_s
            )
        if manifest.config_file is not None and config.startup_timeout_s is not None:
            startup_timeout_s = config.startup_timeout_s
        else:
            startup_timeout_s = _positive(configured.get("startupTimeout")) or _given(
                asked.startup_timeout, defaults.startup_timeout_s
            )
        if not defaults.has_time_limits:  # TorchServe: `debug`, whatever anybody asks for
            response_timeout_s = startup_timeout_s = UNLIMITED_S
        min_workers, max_workers = self._workers(asked, model_dir, configured)
        batch_size = asked.batch_size
        if batch_size is None or batch_size == UNSET_BATCH_SIZE:
            batch_size = config.batch_size or _positive(configured.get("batchSize")) or 1
        delay_ms = asked.max_batch_delay
        if delay_ms is None or delay_ms == UNSET_BATCH_DELAY:
            delay_ms = config.max_batch_delay_ms or _positive(configured.get("maxBatchDelay"))
            delay_ms = delay_ms or 100
        if config.sequence_batching and config.sequence_max_idle_ms == 0:
            # TorchServe registers it, and answers each request with 500.
            raise InvalidModel(
                f"Model {name} has sequenceBatching, which needs sequenceMaxIdleMSec above 0."
            )
        runtime = asked.runtime or manifest.runtime
        preferred = configured.get("runtimeType")
        return ModelSpec(
            name=name,
            version=version,
            url=asked.url,
            handler=asked.handler or manifest.handler or defaults.handler or str(model_dir.path),
            runtime=runtime,
            # TorchServe: the `models` JSON comes first, and is not described.
            worker_runtime=preferred if preferred in RUNTIMES else runtime,
            envelope=defaults.envelope,
            batch_size=batch_size,
            max_batch_delay_ms=delay_ms,
            min_workers=min_workers,
            max_workers=max_workers,
            response_timeout_s=response_timeout_s,
            startup_timeout_s=startup_timeout_s,
            job_queue_size=config.job_queue_size or defaults.job_queue_size,
            max_retry_timeout_s=config.max_retry_timeout_s,
            client_timeout_ms=config.client_timeout_ms,
            loaded_at_startup=asked.loaded_at_startup or name in self._startup_names,
            may_gain_from_ipex=_may_gain_from_ipex(model_dir),
            shared_weights=config.shared_weights,
            engine=config.engine,
            dtype=config.dtype,
            warm_up_inputs=config.warm_up_inputs,
            warm_up_file=config.warm_up_file,
            wants_network=config.wants_network,
            parallel_type=config.parallel_type,
            parallel_level=config.parallel_level if config.parallel_type else 0,
            device_type=_device_type(config.device_type, self._ground.gpus),
            device_ids=self._ground.gpus.usable_ids(config.device_ids),
            torchrun=config.torchrun,
            is_async=config.async_communication,
            continuous_batching=config.continuous_batching,
            use_job_ticket=config.use_job_ticket,
            use_venv=config.use_venv,
            stateful=config.sequence_batching,
            sequence_max_idle_ms=config.sequence_max_idle_ms,
            sequence_timeout_ms=config.sequence_timeout_ms,
            # TorchServe: only where sequences may be idle for a time, whether there are any or not
            max_num_sequence=config.max_num_sequence if config.sequence_max_idle_ms else 0,
            max_sequence_job_queue_size=(
                config.max_sequence_job_queue_size if config.sequence_max_idle_ms else 0
            ),
        )

    def _workers(
        self, asked: Registration, model_dir: ModelDir, configured: Mapping[str, Any]
    ) -> tuple[int, int]:
        config = model_dir.config
        if config.max_workers >= config.min_workers > 0:
            return config.min_workers, config.max_workers
        initial = asked.initial_workers
        if initial is None:
            initial = self._defaults.workers_at_register
        initial = max(0, initial)
        if not asked.loaded_at_startup:
            return initial, initial
        # TorchServe: each for itself, even where the minimum is then above the maximum
        low, high = (_positive(configured.get(name)) for name in ("minWorkers", "maxWorkers"))
        return low or initial, high or initial


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


def _may_gain_from_ipex(model_dir: ModelDir) -> bool:
    """Whether there are weights that are worth the seconds of IPEX's import."""
    name = model_dir.manifest.serialized_file
    if name is None:
        return False
    try:
        size = (model_dir.path / name).stat().st_size
    except OSError:
        return False  # the load will fail, in its own words
    return size >= IPEX_WORTH_BYTES


def _positive(value: Any) -> int:
    """A number of the `models` JSON; TorchServe ignores those that are not above zero."""
    return value if isinstance(value, int) and value > 0 else 0


def _given(timeout_s: int | None, default_s: int) -> int:
    """A timeout of the API. TorchServe: only -1 means "not given", 0 is never in time."""
    return default_s if timeout_s in (None, UNSET_TIMEOUT) else timeout_s


def _device_type(asked: str | None, gpus: Gpus) -> str:
    """What a model runs on: its wish, where there is a GPU at all."""
    return "cpu" if asked == "cpu" or not gpus.count else "gpu"
