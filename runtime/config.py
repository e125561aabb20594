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
from torchkeep.runtime.properties import parse_properties, substitute
from torchkeep.runtime.snapshot import SavedModel


def _local(port: int) -> Address:
    return Address("http", "127.0.0.1", port)


@dataclass(frozen=True, kw_only=True)
class Config:
    """Names as in config.properties; None where a key is unset and has no default."""

    inference_address: Address = key(address(80, 443), _local(8080))
    management_address: Address = key(address(8081, 8444), _local(8081))
    metrics_address: Address = key(address(8082, 8445), _local(8082))

    model_store: Path | None = key(PATH, None)
    load_models: list[str] = key(ITEMS, [])
    key_source: str | None = key(TEXT, None, env=None)  # see runtime/keys.py
    kbs_certificate: Path | None = key(PATH, None, env=None)
    insecure_simulated_tee: bool = key(BOOLEAN, False, env=None)
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
    system_metrics_cmd: str = key(WORDS, "", env=None)  # has a warning, no effect
    cors_allowed_origin: str | None = key(TEXT, None)
    cors_allowed_methods: str | None = key(TEXT, None)
    cors_allowed_headers: str | None = key(TEXT, None)
    cpu_launcher_enable: bool = key(TORCHSERVE_BOOLEAN, False)
    cpu_launcher_args: str | None = key(TEXT, None)
    enable_model_api: bool = key(TORCHSERVE_BOOLEAN, False)
    disable_token_authorization: bool = key(TORCHSERVE_BOOLEAN, False)
    token_expiration_min: float = key(NUMBER, 60.0, env="TS_TOKEN_EXPIRATION_TIME_MIN")
    initial_worker_port: int = key(PORT, 9000)
    ts_open_inference_protocol: bool = key(OIP, False, always_from_env=True)
    ipex_enable: bool | None = key(
        TORCHSERVE_BOOLEAN, None
    )  # None: IPEX where it is installed and wins
    # Ours: how far the code of a model is confined, and where its words may go.
    sandbox: str = key(choice("off", "standard", "strict"), "")
    sandbox_allow: list[str] = key(choices("network"), [])
    handler_log: str = key(choice("console", "memory", "drop"), "")
    model_server_home: Path | None = key(PATH, None, has_effect=False, always_from_env=True)

    # Accepted, without effect so far (and some, like vmargs, for ever).
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
    unregister_model_timeout: int = key(COUNT, 120, has_effect=False)  # workers are killed at once
    number_of_gpu: int | None = key(COUNT, None, has_effect=False)
    number_of_netty_threads: int = key(COUNT, 0, has_effect=False)
    netty_client_threads: int = key(COUNT, 0, has_effect=False)
    keystore: Path | None = key(PATH, None, has_effect=False)
    keystore_pass: str = key(WORDS, "changeit", has_effect=False, is_secret=True)
    keystore_type: str = key(WORDS, "PKCS12", has_effect=False)
    private_key_file: Path | None = key(PATH, None, has_effect=False)
    certificate_file: Path | None = key(PATH, None, has_effect=False)
    async_logging: bool = key(TORCHSERVE_BOOLEAN, False, has_effect=False)
    prefer_direct_buffer: bool = key(TORCHSERVE_BOOLEAN, False, has_effect=False)
    debug: bool = key(TORCHSERVE_BOOLEAN, False, has_effect=False)
    initial_distribution_port: int = key(PORT, 29500, has_effect=False)
    cpp_log_config: Path | None = key(PATH, None, has_effect=False)
    ipex_gpu_enable: bool = key(TORCHSERVE_BOOLEAN, False, has_effect=False)
    ts_header_key_sequence_id: str = key(WORDS, "ts_request_sequence_id", has_effect=False)
    ts_header_key_sequence_start: str = key(WORDS, "ts_request_sequence_start", has_effect=False)
    ts_header_key_sequence_end: str = key(WORDS, "ts_request_sequence_end", has_effect=False)
    use_native_io: bool = key(TORCHSERVE_BOOLEAN, True, env=None, has_effect=False)
    io_ratio: int = key(COUNT, 50, env=None, has_effect=False)
    vmargs: str | None = key(TEXT, None, env=None, has_effect=False)
    plugins_path: Path | None = key(PATH, None, env=None, has_effect=False)
    python: str | None = key(TEXT, None, env=None, has_effect=False)

    # About the configuration itself.
    source: Path | None = None  # the file, for the start-up line
    # What file and flags say, as texts.
    given: Mapping[str, str] = field(default_factory=dict, compare=False)
    snapshots: Path | None = None  # where they are written; None where they are not
    no_effect: list[str] = field(default_factory=list)  # what the user set in vain
    warnings: list[str] = field(default_factory=list)

    @property
    def not_served(self) -> list[str]:
        """What a TorchServe of this configuration would serve and we do not yet."""
        return ["gRPC", "workflows"]


def load_config(flags: Flags, environ: Mapping[str, str], cwd: Path) -> Config:
    """Raises `ConfigError` at the first value that cannot be used."""
    source = _find_source(flags, environ, cwd)
    in_file = _from_file(source, environ, cwd) if source else {}
    given = in_file | _from_flags(flags)
    settings = dict(given)
    warnings = _forgive(settings)  # first: one of them says whether the environment counts
    settings |= _from_environment(settings, environ)
    warnings += _forgive(settings)
    values = {name: _read(name, settings[name], cwd) for name in _KEYS if name in settings}
    in_vain = [name for name in values if not _KEYS[name].has_effect]
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
    if values.get("system_metrics_cmd"):
        warnings.append(
            f"{settings['system_metrics_cmd'].origin}: system_metrics_cmd is not run, the server"
            " reads processors, memory and disk itself"
        )
    values["metrics_mode"] = "log" if is_unknown_mode else mode.lower()
    if "workflow_store" not in values and "model_store" in given:
        # TorchServe: TS_MODEL_STORE does not move the workflow store.
        values["workflow_store"] = _read("workflow_store", given["model_store"], cwd)
    return Config(
        source=source,
        given={name: setting.text for name, setting in given.items()},
        snapshots=None if flags.no_config_snapshots else cwd / _snapshots(environ),
        no_effect=in_vain,
        warnings=warnings,
        **values,
    )


_KEYS: Mapping[str, Key] = {
    one.name: one.metadata["key"] for one in fields(Config) if "key" in one.metadata
}
_KNOWN = {*_KEYS, "version", "tsConfigFile"}  # the last two: TorchServe's own notes in snapshots
_METRICS_MODES = ("log", "prometheus", "legacy")


@dataclass(frozen=True, slots=True)
class _Setting:
    text: str
    origin: str  # "config.properties, line 3", for messages


def _find_source(flags: Flags, environ: Mapping[str, str], cwd: Path) -> Path | None:
    if named := environ.get("TS_CONFIG_FILE") or flags.ts_config:
        return Path(named)
    if not flags.no_config_snapshots:
        snapshots = _snapshots(environ)
        names = [path.name for path in (cwd / snapshots).glob("[0-9]*-*.cfg")]
        if names:
            return snapshots / max(names, key=lambda name: name.partition("-")[0])
    usual = Path("config.properties")
    return usual if (cwd / usual).is_file() else None


def _snapshots(environ: Mapping[str, str]) -> Path:
    return Path(environ.get("LOG_LOCATION") or "logs", "config")


def _from_file(source: Path, environ: Mapping[str, str], cwd: Path) -> dict[str, _Setting]:
    try:
        content = (cwd / source).read_bytes()
        try:
            text = content.decode()
        except UnicodeDecodeError:
            text = content.decode("latin-1")  # Java's encoding of properties files
        properties = parse_properties(text)
    except OSError as error:
        raise ConfigError(f"{source}: {error.strerror}") from error
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
