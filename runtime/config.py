"""The configuration of a server: every key of config.properties, and where values come from.

The file is the first of TS_CONFIG_FILE, --ts-config, the latest snapshot, ./config.properties.
A value is the first of the environment (only if the file says enable_envvars_config=true),
the command line, the file, the default. The table below is the one list of keys.
"""

# ruff: noqa: RUF009  (key() returns a dataclass field: nothing is shared between instances)

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from torchkeep.runtime.address import Address
from torchkeep.runtime.command_line import Flags
from torchkeep.runtime.config_keys import (
    AT_LEAST_ONE,
    BOOLEAN,
    COUNT,
    ITEMS,
    MODELS,
    NUMBER,
    OIP,
    PATH,
    PORT,
    REGEX,
    REGEXES,
    SAVED_MODELS,
    TEXT,
    TORCHSERVE_BOOLEAN,
    TRUSTED_MODELS,
    WORDS,
    Key,
    address,
    choice,
    choices,
    key,
)
from torchkeep.runtime.errors import ConfigError
from torchkeep.runtime.gpus import gpu_count
from torchkeep.runtime.properties import decode_properties, parse_properties, substitute
from torchkeep.runtime.snapshot import FileSnapshots, SavedModel, SnapshotStore


def _local(port: int) -> Address:
    return Address("http", "127.0.0.1", port)


@dataclass(frozen=True, kw_only=True)
class Config:
    """Names as in config.properties; None where a key is unset and has no default."""

    inference_address: Address = key(address(80, 443), _local(8080))
    management_address: Address = key(address(8081, 8444), _local(8081))
    metrics_address: Address = key(address(8082, 8445), _local(8082))
    # Of `https` addresses; the keystore comes first.
    keystore: Path | None = key(PATH, None)
    keystore_pass: str = key(WORDS, "changeit", is_secret=True)
    keystore_type: str = key(WORDS, "PKCS12")  # what counts is what the file is
    private_key_file: Path | None = key(PATH, None)
    certificate_file: Path | None = key(PATH, None)

    model_store: Path | None = key(PATH, None)
    load_models: list[str] = key(ITEMS, [])
    key_source: str | None = key(TEXT, None, env=None)  # see runtime/keys.py
    kbs_certificate: Path | None = key(PATH, None, env=None)
    insecure_simulated_tee: bool = key(BOOLEAN, False, env=None)
    evidence: str | None = key(TEXT, None, env=None)  # see runtime/evidence.py
    attested_tls: bool = key(BOOLEAN, False, env=None)
    attested_address: Address = key(
        address(8080, 8443), Address("https", "0.0.0.0", 8443), env=None
    )
    unpack_directory: Path | None = key(PATH, None)
    # Not from the environment, which others than the owner of the models may set.
    require_sealed_models: bool = key(BOOLEAN, False, env=None)
    trusted_models: Mapping[str, Mapping[str, str]] | None = key(TRUSTED_MODELS, None, env=None)
    allow_unsealed_on_disk: bool = key(BOOLEAN, False, env=None)
    models: Mapping[str, Mapping[str, Mapping[str, Any]]] = key(MODELS, {}, env=None)
    # Of a snapshot: what is to be served instead of `load_models`.
    model_snapshot: list[SavedModel] | None = key(SAVED_MODELS, None, env=None)
    default_workers_per_model: int | None = key(COUNT, None)
    default_response_timeout: int = key(COUNT, 120)  # s, as the next one
    default_startup_timeout: int = key(COUNT, 120)
    debug: bool = key(TORCHSERVE_BOOLEAN, False)  # one worker, and no time limits
    job_queue_size: int = key(AT_LEAST_ONE, 100)
    max_request_size: int = key(COUNT, 6553500)  # bytes
    max_response_size: int = key(COUNT, 6553500)  # bytes
    limit_max_image_pixels: bool = key(TORCHSERVE_BOOLEAN, True)
    decode_input_request: bool = key(TORCHSERVE_BOOLEAN, True)
    default_service_handler: str | None = key(TEXT, None)
    service_envelope: str | None = key(TEXT, None)
    allowed_urls: list[str] = key(REGEXES, ["file://.*|http(s)?://.*"])
    use_env_allowed_urls: bool = key(TORCHSERVE_BOOLEAN, False, env=None)
    install_py_dep_per_model: bool = key(TORCHSERVE_BOOLEAN, False)
    blacklist_env_vars: str = key(REGEX, "")
    enable_envvars_config: bool = key(TORCHSERVE_BOOLEAN, False, env=None)
    enable_metrics_api: bool = key(TORCHSERVE_BOOLEAN, True)
    metrics_config: Path | None = key(PATH, None)
    metrics_mode: str = key(WORDS, "log")
    model_metrics_auto_detect: bool = key(TORCHSERVE_BOOLEAN, False)
    disable_system_metrics: bool = key(TORCHSERVE_BOOLEAN, False)
    metric_time_interval: int = key(AT_LEAST_ONE, 60, env=None)  # s
    system_metrics_cmd: str = key(WORDS, "", env=None)
    cors_allowed_origin: str | None = key(TEXT, None)
    cors_allowed_methods: str | None = key(TEXT, None)
    cors_allowed_headers: str | None = key(TEXT, None)
    cpu_launcher_enable: bool = key(TORCHSERVE_BOOLEAN, False)
    cpu_launcher_args: str | None = key(TEXT, None)
    enable_model_api: bool = key(TORCHSERVE_BOOLEAN, False)
    disable_token_authorization: bool = key(TORCHSERVE_BOOLEAN, False)
    token_expiration_min: float = key(NUMBER, 60.0, env="TS_TOKEN_EXPIRATION_TIME_MIN")
    initial_worker_port: int = key(PORT, 9000)
    ts_header_key_sequence_id: str = key(WORDS, "ts_request_sequence_id")
    ts_header_key_sequence_start: str = key(WORDS, "ts_request_sequence_start")
    ts_header_key_sequence_end: str = key(WORDS, "ts_request_sequence_end")
    plugins_path: list[str] = key(ITEMS, [], env=None)  # see runtime/plugin_loading.py
    ts_open_inference_protocol: bool = key(OIP, False, always_from_env=True)
    # None: IPEX where it is installed and wins
    ipex_enable: bool | None = key(TORCHSERVE_BOOLEAN, None)
    number_of_gpu: int | None = key(COUNT, None)
    initial_distribution_port: int = key(PORT, 29500)
    ipex_gpu_enable: bool = key(TORCHSERVE_BOOLEAN, False)
    # Ours: how far the code of a model is confined, and where its words may go.
    sandbox: str = key(choice("off", "standard", "strict"), "")
    sandbox_allow: list[str] = key(choices("network"), [])
    handler_log: str = key(choice("console", "memory", "drop"), "")

    # Accepted, and without effect for ever.
    number_of_netty_threads: int = key(COUNT, 0, in_vain="Java's")
    netty_client_threads: int = key(COUNT, 0, in_vain="Java's")
    prefer_direct_buffer: bool = key(TORCHSERVE_BOOLEAN, False, in_vain="Java's")
    use_native_io: bool = key(TORCHSERVE_BOOLEAN, True, env=None, in_vain="Java's")
    io_ratio: int = key(COUNT, 50, env=None, in_vain="Java's")
    vmargs: str | None = key(TEXT, None, env=None, in_vain="Java's")
    async_logging: bool = key(TORCHSERVE_BOOLEAN, False, in_vain="all logging is")
    cpp_log_config: Path | None = key(PATH, None, in_vain="no C++ backend here")
    python: str | None = key(TEXT, None, env=None, in_vain="it is the server's own")
    model_server_home: Path | None = key(
        PATH, None, in_vain="it only has to exist", always_from_env=True
    )
    unregister_model_timeout: int = key(COUNT, 120, in_vain="workers end at once")  # s

    # Accepted, without effect so far.
    grpc_inference_address: str = key(WORDS, "127.0.0.1", has_effect=False)
    grpc_inference_port: int = key(PORT, 7070, has_effect=False)
    grpc_management_address: str = key(WORDS, "127.0.0.1", has_effect=False)
    grpc_management_port: int = key(PORT, 7071, has_effect=False)
    grpc_inference_max_connection_age_ms: int | None = key(COUNT, None, has_effect=False)
    grpc_management_max_connection_age_ms: int | None = key(COUNT, None, has_effect=False)
    grpc_inference_max_connection_age_grace_ms: int | None = key(COUNT, None, has_effect=False)
    grpc_management_max_connection_age_grace_ms: int | None = key(COUNT, None, has_effect=False)
    enable_grpc_ssl: bool = key(TORCHSERVE_BOOLEAN, False, has_effect=False)
    workflow_store: Path | None = key(PATH, None, has_effect=False)

    # About the configuration itself.
    source: Path | None = None  # the file, for the start-up line
    # What file and flags say, as texts, for snapshots: without what is to be said at each start.
    given: Mapping[str, str] = field(default_factory=dict, compare=False)
    snapshots: SnapshotStore | None = None  # where they are kept; None where they are not
    no_effect: list[str] = field(default_factory=list)  # what the user set, too early
    in_vain: list[str] = field(default_factory=list)  # and what never has any, with the reason
    warnings: list[str] = field(default_factory=list)

    @property
    def is_confidential(self) -> bool:
        """Handlers are strangers: it is said so, or there is a TEE, or a service gives out keys."""
        kind = (self.key_source or "").partition(":")[0]
        has_tee = self.insecure_simulated_tee or self.evidence is not None
        return has_tee or kind in ("cdh", "kbs") or self.sandbox == "strict"

    def gpu_count(self, environ: Mapping[str, str]) -> int:
        """The GPUs to serve on."""
        is_from_environment = self.enable_envvars_config and "TS_NUMBER_OF_GPU" in environ
        return gpu_count(self.number_of_gpu, is_from_environment, environ)

    @property
    def not_served(self) -> list[str]:
        """What a TorchServe of this configuration would serve and we do not yet."""
        return ["gRPC", "workflows"]


def load_config(
    flags: Flags, environ: Mapping[str, str], cwd: Path, store: SnapshotStore | None = None
) -> Config:
    """Raises `ConfigError` at the first value that cannot be used.

    `store` is where a plugin keeps the snapshots.
    """
    usual_store = FileSnapshots(cwd / _snapshots(environ))
    source, text = _find_source(flags, environ, cwd, store or usual_store)
    in_file = _from_text(source, text, environ) if source else {}
    given = in_file | _from_flags(flags)
    settings = dict(given)
    warnings = _forgive(settings)  # first: one of them says whether the environment counts
    settings |= _from_environment(settings, environ)
    warnings += _forgive(settings)
    values = {name: _read(name, settings[name], cwd) for name in _KEYS if name in settings}
    without = {name: _KEYS[name].in_vain for name in values if not _KEYS[name].has_effect}
    if "model_snapshot" in values:
        without.pop("python", None)  # TorchServe's note, which nobody set
    warnings += [_unknown(name, in_file[name]) for name in in_file if name not in _KNOWN]

    # TorchServe: the launcher sets it, so that it is never looked up in the file.
    home = values.get("model_server_home") if "TS_MODEL_SERVER_HOME" in environ else None
    if home and not home.is_dir():
        raise ConfigError(
            f"Model server home not exist: {home} ({settings['model_server_home'].origin})"
        )
    mode = values.pop("metrics_mode", "log").strip()
    if is_unknown_mode := mode.lower() not in _METRICS_MODES:
        warnings.append(
            f'Configured metrics mode "{mode}" not supported. Defaulting to "LOG" mode: '
            f"{settings['metrics_mode'].origin} knows {', '.join(_METRICS_MODES)}"
        )
    if environ.get("TS_BENCHMARK") in ("True", "true", "TRUE") and values.get("sandbox") != "off":
        warnings.append(
            "environment variable TS_BENCHMARK: workers may not write /tmp/tsPythonProfile.prof, "
            "only sandbox=off lets them"
        )
    values["metrics_mode"] = "log" if is_unknown_mode else mode.lower()
    if "workflow_store" not in values and "model_store" in given:
        # TorchServe: TS_MODEL_STORE does not move the workflow store.
        values["workflow_store"] = _read("workflow_store", given["model_store"], cwd)
    return Config(
        source=source,
        given={name: one.text for name, one in given.items() if name not in _NOT_INHERITED},
        snapshots=None if flags.no_config_snapshots else store or usual_store,
        no_effect=[name for name, reason in without.items() if not reason],
        in_vain=[
            f"{name} ({reason})"
            for name, reason in without.items()
            if reason and values[name] != _DEFAULTS[name]
        ],
        warnings=warnings,
        **values,
    )


_KEYS: Mapping[str, Key] = {
    one.name: one.metadata["key"] for one in fields(Config) if "key" in one.metadata
}
_DEFAULTS = {name: getattr(Config(), name) for name in _KEYS}
_KNOWN = {*_KEYS, "version", "tsConfigFile"}  # the last two: TorchServe's own notes in snapshots
# A simulated TEE that a snapshot handed on would be one that nobody asked for.
_NOT_INHERITED = ("insecure_simulated_tee",)
_METRICS_MODES = ("log", "prometheus", "legacy")


@dataclass(frozen=True, slots=True)
class _Setting:
    text: str
    origin: str  # "config.properties, line 3", for messages


def _find_source(
    flags: Flags, environ: Mapping[str, str], cwd: Path, store: SnapshotStore
) -> tuple[Path | None, str]:
    """The file, or the name that a snapshot has in the store, and its text."""
    if named := environ.get("TS_CONFIG_FILE") or flags.ts_config:
        return Path(named), _file_text(cwd, Path(named))
    if not flags.no_config_snapshots and (last := _last_snapshot(store)):
        name, text = last
        is_file = isinstance(store, FileSnapshots)
        return (_snapshots(environ) / name if is_file else Path(name)), text
    usual = Path("config.properties")
    if (cwd / usual).is_file():
        return usual, _file_text(cwd, usual)
    return None, ""


def _last_snapshot(store: SnapshotStore) -> tuple[str, str] | None:
    """A server that cannot know what it served must not start as if it had served nothing."""
    try:
        last = store.last()
        if last is not None:
            name, text = last
            if not (isinstance(name, str) and isinstance(text, str)):
                raise TypeError("last() must return None or two texts: name and content")
    except Exception as error:
        raise ConfigError(
            f"the last snapshot cannot be read from {store}: {type(error).__name__}: {error}. "
            "Start with --ncs to go without snapshots, or name a file with --ts-config"
        ) from error
    return last


def _file_text(cwd: Path, path: Path) -> str:
    try:
        return decode_properties((cwd / path).read_bytes())
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from error


def _snapshots(environ: Mapping[str, str]) -> Path:
    return Path(environ.get("LOG_LOCATION") or "logs", "config")


def _from_text(source: Path, text: str, environ: Mapping[str, str]) -> dict[str, _Setting]:
    try:
        properties = parse_properties(text)
    except ValueError as error:
        raise ConfigError(f"{source}, {error}") from error
    settings = {}
    for one in properties:
        origin = f"{source}, line {one.line}"
        try:
            settings[one.key] = _Setting(substitute(one.value, environ), origin)
        except ValueError as error:
            raise ConfigError(f"{error} ({origin}: {one.key})") from error
    return settings


def _from_flags(flags: Flags) -> dict[str, _Setting]:
    given = {
        "model_store": ("--model-store", flags.model_store),
        "workflow_store": ("--workflow-store", flags.workflow_store),
        "load_models": ("--models", ",".join(flags.models)),
        "cpp_log_config": ("--cpp-log-config", flags.cpp_log_config),
        "plugins_path": ("--plugins-path", flags.plugins_path),
        "disable_token_authorization": (
            "--disable-token-auth",
            "true" if flags.disable_token_auth else None,
        ),
        "enable_model_api": ("--enable-model-api", "true" if flags.enable_model_api else None),
        "insecure_simulated_tee": (
            "--insecure-simulated-tee",
            "true" if flags.insecure_simulated_tee else None,
        ),
    }
    return {name: _Setting(text, origin) for name, (origin, text) in given.items() if text}


def _from_environment(
    settings: Mapping[str, _Setting], environ: Mapping[str, str]
) -> dict[str, _Setting]:
    def is_on(name: str) -> bool:
        return name in settings and bool(_read(name, settings[name], Path()))

    found = {}
    for name, one in _KEYS.items():
        variable = f"TS_{name.removeprefix('ts_')}".upper() if one.env == "" else one.env
        is_open = one.always_from_env or is_on("enable_envvars_config")
        if name == "allowed_urls":  # TorchServe: this one has a second lock
            is_open = is_open and is_on("use_env_allowed_urls")
        if variable and is_open and variable in environ:
            found[name] = _Setting(environ[variable], f"environment variable {variable}")
    return found


def _forgive(settings: dict[str, _Setting]) -> list[str]:
    """Put right what TorchServe starts with all the same, and say so."""
    warnings = []
    for name, setting in list(settings.items()):
        parser = _KEYS[name].parser if name in _KEYS else None
        if parser is TORCHSERVE_BOOLEAN and setting.text.lower() not in ("true", "false"):
            settings[name] = _Setting("false", setting.origin)
            warnings.append(
                f'{setting.origin}: {name} is "{setting.text}", which is neither true nor false; '
                "as in TorchServe it counts as false"
            )
    return warnings + _forgive_lifetime(settings)


def _forgive_lifetime(settings: dict[str, _Setting]) -> list[str]:
    """TorchServe: keys whose lifetime is no number live for an hour. Says so, and drops it."""
    name = "token_expiration_min"
    try:
        if name in settings:
            _read(name, settings[name], Path())
        return []
    except ConfigError as error:
        del settings[name]
        return [f"{error}; keys live for 60 minutes"]


def _read(name: str, setting: _Setting, cwd: Path) -> Any:
    parser = _KEYS[name].parser
    try:
        value = parser.read(setting.text)
    except ValueError as error:
        raise ConfigError(
            f"{error} ({setting.origin}: {name} must be {parser.expected})"
        ) from error
    return cwd / value if isinstance(value, Path) else value


def _unknown(name: str, setting: _Setting) -> str:
    nearest = get_close_matches(name, _KEYS, n=1)
    hint = f"; did you mean {nearest[0]}?" if nearest else ""
    return f"{setting.origin}: unknown key {name}{hint}"
