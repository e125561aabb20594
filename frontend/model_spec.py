"""What a model is served with: of the call, the archive and the configuration, who counts."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from torchkeep.frontend.errors import InvalidModel
from torchkeep.frontend.gpus import Gpus
from torchkeep.modelstore.manifest import MANIFEST_PATH, RUNTIMES
from torchkeep.modelstore.model_config import ModelConfig
from torchkeep.modelstore.model_url import default_model_name
from torchkeep.modelstore.opening import ModelDir
from torchkeep.runtime.messages import Way

# TorchServe: these values of a query mean "not given", all others are taken as they are.
UNSET_BATCH_SIZE = -1
UNSET_BATCH_DELAY = -100
UNSET_TIMEOUT = -1

UNLIMITED_S = 2**31 - 1  # Java's largest integer, which a description shows
IPEX_WORTH_BYTES = 1 << 20  # of weights


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


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """What was asked for at registration; scaling replaces it. Times carry their unit."""

    name: str
    version: str
    url: str
    handler: str
    runtime: str = "python"
    worker_runtime: str = "python"  # of the interpreter; `models` JSON may change it
    envelope: str = ""
    batch_size: int = 1
    max_batch_delay_ms: int = 100
    min_workers: int = 0
    max_workers: int = 0
    response_timeout_s: int = 120
    startup_timeout_s: int = 120
    job_queue_size: int = 100
    max_retry_timeout_s: int = 300
    client_timeout_ms: int = 0  # 0: none
    use_job_ticket: bool = False
    loaded_at_startup: bool = False
    device_type: str = "cpu"
    may_gain_from_ipex: bool = False
    shared_weights: bool | None = None  # None: where it is known to be safe
    engine: str = ""
    dtype: str = ""
    warm_up_inputs: list[tuple[list[int], str]] = field(default_factory=list)
    warm_up_file: str = ""
    wants_network: bool = False  # also where the sandbox is strict
    use_venv: bool = False
    interpreter: str | None = None  # of its own, with what was installed for it
    libraries: Sequence[str] = ()  # where that one finds ours first, if the model has others
    parallel_type: str = ""
    parallel_level: int = 0
    device_ids: list[int] | None = None
    torchrun: Mapping[str, int | str] | None = None
    is_async: bool = False  # its handler is a coroutine, with many requests under way
    continuous_batching: bool = False
    stateful: bool = False
    sequence_max_idle_ms: int = 0
    sequence_timeout_ms: int = 0
    max_num_sequence: int = 0
    max_sequence_job_queue_size: int = 0

    @property
    def way(self) -> Way:
        """How its workers run, once they have loaded it."""
        if self.is_async:
            return "concurrent"
        return "steps" if self.continuous_batching else "batches"


def model_spec(
    asked: Registration,
    model_dir: ModelDir,
    defaults: ModelDefaults,
    gpus: Gpus,
    startup_names: Collection[str],
) -> ModelSpec:
    """What is served: by TorchServe's order of precedence, of what three say.

    `startup_names` are models of which a version was loaded at the start.

    Raises InvalidModel for what has no name, or cannot be answered.
    """
    manifest, config = model_dir.manifest, model_dir.config
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
    response_timeout_s = _timeout_s(
        config.response_timeout_s,
        configured.get("responseTimeout"),
        asked.response_timeout,
        defaults.response_timeout_s,
    )
    startup_timeout_s = _timeout_s(
        config.startup_timeout_s,
        configured.get("startupTimeout"),
        asked.startup_timeout,
        defaults.startup_timeout_s,
    )
    if not defaults.has_time_limits:  # TorchServe: `debug`, whatever anybody asks for
        response_timeout_s = startup_timeout_s = UNLIMITED_S
    min_workers, max_workers = _workers(asked, config, configured, defaults)
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
        loaded_at_startup=asked.loaded_at_startup or name in startup_names,
        may_gain_from_ipex=_may_gain_from_ipex(model_dir),
        shared_weights=config.shared_weights,
        engine=config.engine,
        dtype=config.dtype,
        warm_up_inputs=config.warm_up_inputs,
        warm_up_file=config.warm_up_file,
        wants_network=config.wants_network,
        parallel_type=config.parallel_type,
        parallel_level=config.parallel_level if config.parallel_type else 0,
        device_type=_device_type(config.device_type, gpus),
        device_ids=gpus.usable_ids(config.device_ids),
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
    asked: Registration,
    config: ModelConfig,
    configured: Mapping[str, Any],
    defaults: ModelDefaults,
) -> tuple[int, int]:
    if config.max_workers >= config.min_workers > 0:
        return config.min_workers, config.max_workers
    initial = asked.initial_workers
    if initial is None:
        initial = defaults.workers_at_register
    initial = max(0, initial)
    if not asked.loaded_at_startup:
        return initial, initial
    # TorchServe: each for itself, even where the minimum is then above the maximum
    low, high = (_positive(configured.get(name)) for name in ("minWorkers", "maxWorkers"))
    return low or initial, high or initial


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


def _timeout_s(
    archived_s: int | None, configured_s: Any, asked_s: int | None, default_s: int
) -> int:
    """Of the archive, the `models` JSON, the API and the configuration, the first that says one.

    TorchServe: an archive with a config file says one always. Of the API, only -1 means "not
    given", and 0 is never in time.
    """
    if archived_s is not None:
        return archived_s
    given_s = default_s if asked_s is None or asked_s == UNSET_TIMEOUT else asked_s
    return _positive(configured_s) or given_s


def _device_type(asked: str | None, gpus: Gpus) -> str:
    """What a model runs on: its wish, where there is a GPU at all."""
    return "cpu" if asked == "cpu" or not gpus.count else "gpu"
