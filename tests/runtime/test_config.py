"""Every key of config.properties: its default, its sources, and what a wrong value says."""

import re
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from torchkeep.runtime.address import Address
from torchkeep.runtime.command_line import Flags
from torchkeep.runtime.config import Config, load_config
from torchkeep.runtime.errors import ConfigError
from torchkeep.runtime.snapshot import FileSnapshots

CONTRACT_KEYS = set(
    """
inference_address management_address metrics_address grpc_inference_address grpc_inference_port
grpc_management_address grpc_management_port grpc_inference_max_connection_age_ms
grpc_management_max_connection_age_ms grpc_inference_max_connection_age_grace_ms
grpc_management_max_connection_age_grace_ms enable_grpc_ssl model_store workflow_store load_models
models model_snapshot default_workers_per_model default_response_timeout default_startup_timeout
unregister_model_timeout job_queue_size number_of_gpu number_of_netty_threads netty_client_threads
max_request_size max_response_size limit_max_image_pixels decode_input_request
default_service_handler service_envelope allowed_urls use_env_allowed_urls install_py_dep_per_model
blacklist_env_vars enable_envvars_config enable_metrics_api metrics_config metrics_mode
model_metrics_auto_detect disable_system_metrics metric_time_interval system_metrics_cmd
cors_allowed_origin cors_allowed_methods cors_allowed_headers keystore keystore_pass keystore_type
private_key_file certificate_file async_logging prefer_direct_buffer debug model_server_home
initial_worker_port initial_distribution_port cpp_log_config ipex_enable ipex_gpu_enable
cpu_launcher_enable cpu_launcher_args ts_open_inference_protocol token_expiration_min
disable_token_authorization enable_model_api ts_header_key_sequence_id ts_header_key_sequence_start
ts_header_key_sequence_end use_native_io io_ratio vmargs plugins_path python
""".split()  # noqa: SIM905  (a table to compare with the contract's)
)
OUR_KEYS = {  # unknown to TorchServe
    "handler_log",
    "sandbox",
    "sandbox_allow",
    "allow_unsealed_on_disk",
    "attested_address",
    "attested_tls",
    "evidence",
    "insecure_simulated_tee",
    "kbs_certificate",
    "key_source",
    "require_sealed_models",
    "trusted_models",
    "unpack_directory",
}


class Files:
    """A working directory with a config.properties of these lines."""

    def __init__(self, cwd: Path) -> None:
        self.cwd = cwd

    def load(
        self, *lines: str, flags: Flags | None = None, environ: Mapping[str, str] | None = None
    ) -> Config:
        (self.cwd / "config.properties").write_text("".join(f"{line}\n" for line in lines))
        return load_config(flags or Flags(), environ or {}, self.cwd)

    def complaint(self, *lines: str, environ: Mapping[str, str] | None = None) -> str:
        with pytest.raises(ConfigError) as caught:
            self.load(*lines, environ=environ)
        return str(caught.value)


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return Files(tmp_path)


def test_every_key_of_the_contract_is_known() -> None:
    keys = [field.name for field in fields(Config) if "key" in field.metadata]
    assert len(keys) == len(set(keys))
    assert set(keys) == CONTRACT_KEYS | OUR_KEYS


@pytest.mark.parametrize(
    ("line", "value"),
    [
        ("sandbox=strict", "strict"),
        ("sandbox_allow=network", ["network"]),
        ("handler_log=drop", "drop"),
    ],
)
def test_keys_of_the_sandbox(line: str, value: object, files: Files) -> None:
    assert getattr(files.load(line), line.partition("=")[0]) == value


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("sandbox=tight", "one of off, standard, strict"),
        ("sandbox_allow=files", "a comma-separated list of network"),
        ("handler_log=syslog", "one of console, memory, drop"),
    ],
)
def test_a_sandbox_that_does_not_exist_is_refused(line: str, expected: str, files: Files) -> None:
    assert f"must be {expected}" in files.complaint(line)


def test_defaults_without_any_file(tmp_path: Path) -> None:
    config = load_config(Flags(), {}, tmp_path)
    assert config == Config(snapshots=FileSnapshots(tmp_path / "logs" / "config"))
    assert config.source is None
    assert str(config.inference_address) == "http://127.0.0.1:8080"
    assert str(config.management_address) == "http://127.0.0.1:8081"
    assert str(config.metrics_address) == "http://127.0.0.1:8082"
    assert (config.job_queue_size, config.max_request_size) == (100, 6553500)
    assert config.allowed_urls == ["file://.*|http(s)?://.*"]
    assert config.default_workers_per_model is None
    assert config.no_effect == []
    assert config.warnings == []


@pytest.mark.parametrize(
    ("lines", "value"), [((), None), (("ipex_enable=true",), True), (("ipex_enable=false",), False)]
)
def test_ipex_may_be_on_off_or_our_choice(
    files: Files, lines: tuple[str, ...], value: bool | None
) -> None:
    config = files.load(*lines)
    assert config.ipex_enable is value
    assert config.no_effect == []


def test_no_two_configurations_share_a_list() -> None:
    assert Config().allowed_urls is not Config().allowed_urls


def test_values_from_the_file(files: Files) -> None:
    config = files.load(
        "inference_address=https://0.0.0.0",
        "load_models = a.mar, ,b=c.mar",
        "allowed_urls=https://a/.*,file://.*",
        "limit_max_image_pixels=FALSE",
        "default_workers_per_model=0",
        "service_envelope=",
        "model_store=store",
        "max_request_size=2147483647",
    )
    assert config.inference_address == Address("https", "0.0.0.0", 443)
    assert config.load_models == ["a.mar", "b=c.mar"]
    assert config.allowed_urls == ["https://a/.*", "file://.*"]
    assert config.limit_max_image_pixels is False
    assert config.default_workers_per_model == 0
    assert config.service_envelope is None
    assert config.model_store == files.cwd / "store"
    assert config.max_request_size == 2147483647
    assert config.source == Path("config.properties")


def test_of_doubles_the_last_counts(files: Files) -> None:
    assert files.load("job_queue_size=1", "job_queue_size=2").job_queue_size == 2


def test_a_file_in_latin_1_is_read_as_java_reads_it(tmp_path: Path) -> None:
    (tmp_path / "config.properties").write_bytes(b"default_service_handler=caf\xe9\n")
    assert load_config(Flags(), {}, tmp_path).default_service_handler == "caf\xe9"


# Where values come from.


def test_environment_over_command_line_over_file(files: Files) -> None:
    lines = ["enable_envvars_config=true", "model_store=file", "load_models=file.mar"]
    flags = Flags(model_store="flag", models=("flag.mar", "n=b.mar"))
    config = files.load(*lines, flags=flags, environ={"TS_MODEL_STORE": "env"})
    assert config.model_store == files.cwd / "env"
    assert config.load_models == ["flag.mar", "n=b.mar"]


def test_environment_is_ignored_unless_the_file_opens_it(files: Files) -> None:
    environ = {"TS_JOB_QUEUE_SIZE": "7", "TS_ENABLE_ENVVARS_CONFIG": "true"}
    assert files.load(environ=environ).job_queue_size == 100
    assert files.load("enable_envvars_config=true", environ=environ).job_queue_size == 7


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        (["use_env_allowed_urls=true"], "file://.*|http(s)?://.*"),
        (["enable_envvars_config=true"], "file://.*|http(s)?://.*"),
        (["enable_envvars_config=true", "use_env_allowed_urls=true"], "env"),
    ],
)
def test_allowed_urls_need_both_locks_open(files: Files, lines: list[str], expected: str) -> None:
    assert files.load(*lines, environ={"TS_ALLOWED_URLS": "env"}).allowed_urls == [expected]


# Every key with its default, another value, and whether a variable named TS_ and the key sets it.
KEYS = [
    ("inference_address", "http://127.0.0.1:8080", "http://127.0.0.1:1", True),
    ("management_address", "http://127.0.0.1:8081", "http://127.0.0.1:1", True),
    ("metrics_address", "http://127.0.0.1:8082", "http://127.0.0.1:1", True),
    ("grpc_inference_address", "127.0.0.1", "0.0.0.0", True),
    ("grpc_inference_port", "7070", "1", True),
    ("grpc_management_address", "127.0.0.1", "0.0.0.0", True),
    ("grpc_management_port", "7071", "1", True),
    ("grpc_inference_max_connection_age_ms", "None", "1", True),
    ("grpc_management_max_connection_age_ms", "None", "1", True),
    ("grpc_inference_max_connection_age_grace_ms", "None", "1", True),
    ("grpc_management_max_connection_age_grace_ms", "None", "1", True),
    ("enable_grpc_ssl", "False", "true", True),
    ("model_store", "None", "/store", True),
    ("workflow_store", "None", "/store", True),
    ("load_models", "[]", "all", True),
    ("default_workers_per_model", "None", "3", True),
    ("default_response_timeout", "120", "3", True),
    ("default_startup_timeout", "120", "3", True),
    ("unregister_model_timeout", "120", "3", True),
    ("job_queue_size", "100", "3", True),
    ("number_of_gpu", "None", "3", True),
    ("number_of_netty_threads", "0", "3", True),
    ("netty_client_threads", "0", "3", True),
    ("max_request_size", "6553500", "3", True),
    ("max_response_size", "6553500", "3", True),
    ("limit_max_image_pixels", "True", "false", True),
    ("decode_input_request", "True", "false", True),
    ("default_service_handler", "None", "h.py", True),
    ("service_envelope", "None", "body", True),
    ("install_py_dep_per_model", "False", "true", True),
    ("blacklist_env_vars", "", "A.*", True),
    ("enable_metrics_api", "True", "false", True),
    ("metrics_config", "None", "/m.yaml", True),
    ("metrics_mode", "log", "legacy", True),
    ("model_metrics_auto_detect", "False", "true", True),
    ("disable_system_metrics", "False", "true", True),
    ("metric_time_interval", "60", "3", False),
    ("system_metrics_cmd", "", "c", False),
    ("cors_allowed_origin", "None", "*", True),
    ("cors_allowed_methods", "None", "GET", True),
    ("cors_allowed_headers", "None", "X-A", True),
    ("keystore", "None", "/k", True),
    ("keystore_pass", "changeit", "p", True),
    ("keystore_type", "PKCS12", "JKS", True),
    ("private_key_file", "None", "/k", True),
    ("certificate_file", "None", "/c", True),
    ("async_logging", "False", "true", True),
    ("prefer_direct_buffer", "False", "true", True),
    ("debug", "False", "true", True),
    ("initial_worker_port", "9000", "3", True),
    ("initial_distribution_port", "29500", "3", True),
    ("cpp_log_config", "None", "/c", True),
    ("ipex_enable", "None", "true", True),
    ("ipex_gpu_enable", "False", "true", True),
    ("cpu_launcher_enable", "False", "true", True),
    ("cpu_launcher_args", "None", "--ninstances 1", True),
    ("disable_token_authorization", "False", "true", True),
    ("enable_model_api", "False", "true", True),
    ("use_native_io", "True", "false", False),
    ("io_ratio", "50", "3", False),
    ("vmargs", "None", "-Xmx1g", False),
    ("plugins_path", "[]", "/p", False),
]


@pytest.mark.parametrize(
    ("key", "default", "other", "has_variable"), KEYS, ids=[row[0] for row in KEYS]
)
def test_default_and_variable_of_each_key(
    files: Files, key: str, default: str, other: str, has_variable: bool
) -> None:
    assert str(getattr(Config(), key)) == default
    assert str(getattr(files.load(f"{key}={other}"), key)) != default
    config = files.load("enable_envvars_config=true", environ={f"TS_{key.upper()}": other})
    assert (str(getattr(config, key)) != default) == has_variable


def test_keys_that_have_no_variable(files: Files) -> None:
    environ = {"TS_MODELS": "{", "TS_METRIC_TIME_INTERVAL": "5", "TS_VMARGS": "-Xmx1g"}
    config = files.load("enable_envvars_config=true", environ=environ)
    assert (config.models, config.metric_time_interval, config.vmargs) == ({}, 60, None)


def test_variables_with_a_name_of_their_own(files: Files) -> None:
    environ = {
        "TS_TOKEN_EXPIRATION_TIME_MIN": "0.5",
        "TS_OPEN_INFERENCE_PROTOCOL": "oip",
        "TS_HEADER_KEY_SEQUENCE_ID": "x-id",
    }
    config = files.load("enable_envvars_config=true", environ=environ)
    assert config.token_expiration_min == 0.5
    assert config.ts_open_inference_protocol is True
    assert config.ts_header_key_sequence_id == "x-id"


def test_home_and_protocol_are_always_read_from_the_environment(files: Files) -> None:
    environ = {
        "TS_MODEL_SERVER_HOME": str(files.cwd),
        "TS_OPEN_INFERENCE_PROTOCOL": "oip",
    }
    config = files.load(environ=environ)
    assert config.model_server_home == files.cwd
    assert config.ts_open_inference_protocol is True


def test_dollars_in_the_file_are_replaced(files: Files) -> None:
    config = files.load("inference_address=http://0.0.0.0:$$PORT$$", environ={"PORT": "8"})
    assert config.inference_address.port == 8
    assert files.complaint("load_models=$$NOPE$$") == (
        "Invalid Environment Variable NOPE (config.properties, line 1: load_models)"
    )


def test_workflow_store_follows_the_model_store_but_not_its_variable(files: Files) -> None:
    config = files.load(
        "enable_envvars_config=true", "model_store=a", environ={"TS_MODEL_STORE": "b"}
    )
    assert config.model_store == files.cwd / "b"
    assert config.workflow_store == files.cwd / "a"
    assert config.no_effect == []


# Which file it is.


def test_sources_in_their_order(tmp_path: Path) -> None:
    def source(environ: Mapping[str, str] | None = None, **flags: Any) -> str:
        config = load_config(Flags(**flags), environ or {}, tmp_path)
        assert config.job_queue_size == int(str(config.source).count("/")) + 1
        return str(config.source)

    (tmp_path / "logs/config").mkdir(parents=True)
    for name in ("env", "flag", "config.properties"):
        (tmp_path / name).write_text("job_queue_size=1\n")
    assert source() == "config.properties"
    for stamp in ("20230101000000000-shutdown.cfg", "20240101000000000-startup.cfg", "x-y.cfg"):
        (tmp_path / "logs/config" / stamp).write_text("job_queue_size=3\nversion=0.12.0\n")
    assert source() == "logs/config/20240101000000000-startup.cfg"
    assert source(no_config_snapshots=True) == "config.properties"
    assert source(ts_config="flag") == "flag"
    assert source({"TS_CONFIG_FILE": "env"}, ts_config="flag") == "env"


def test_snapshots_are_looked_for_where_the_logs_are(tmp_path: Path) -> None:
    snapshot = tmp_path / "elsewhere/config/1-startup.cfg"
    snapshot.parent.mkdir(parents=True)
    snapshot.write_text("job_queue_size=3\n")
    environ = {"LOG_LOCATION": str(tmp_path / "elsewhere")}
    assert load_config(Flags(), environ, tmp_path).job_queue_size == 3


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"^nope: No such file"):
        load_config(Flags(ts_config="nope"), {}, tmp_path)


# What is wrong with it.


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("default_workers_per_model=abc", 'For input string: "abc"'),
        ("default_workers_per_model=", 'For input string: ""'),
        ("default_workers_per_model=2 ", 'For input string: "2 "'),
        ("default_workers_per_model=-1", 'For input string: "-1"'),
        ("job_queue_size=0", 'For input string: "0"'),
        ("job_queue_size=1_0", 'For input string: "1_0"'),
        ("job_queue_size=1.5", 'For input string: "1.5"'),
        ("max_request_size=2147483648", 'For input string: "2147483648"'),
        ("initial_worker_port=65536", 'For input string: "65536"'),
        ("grpc_inference_port=" + "1" * 5000, 'For input string: "1'),
        ("require_sealed_models=yes", 'For input string: "yes"'),
        ("inference_address=ftp://x", "Invalid binding address: ftp://x"),
        ("metrics_address=http://h:65536", "Invalid port number: http://h:65536"),
        ("blacklist_env_vars=(", "Invalid regular expression: ("),
        ("allowed_urls=.*,[", "Invalid regular expression: ["),
        ("models={", "Malformed JSON: "),
        ("models=" + "[" * 100000, "Malformed JSON: "),
        ("models=[]", "Not an object of models"),
        ('models={"m": 1}', "m is no object of versions"),
        ('models={"m": {"1.0": 1}}', "m.1.0 is no object of settings"),
        ('models={"m": {"1.0": {"minWorkers": "x"}}}', "m.1.0.minWorkers is no whole number"),
        ('models={"m": {"1.0": {"minWorkers": 1.5}}}', "m.1.0.minWorkers is no whole number"),
        ('models={"m": {"1.0": {"batchSize": true}}}', "m.1.0.batchSize is no whole number"),
    ],
)
def test_an_ill_typed_value_names_file_line_key_and_what_was_expected(
    files: Files, line: str, message: str
) -> None:
    complaint = files.complaint("# first", line)
    key = line.partition("=")[0]
    assert complaint.startswith(message)
    assert f"(config.properties, line 2: {key} must be " in complaint


def test_the_complaint_in_full(files: Files) -> None:
    assert files.complaint("job_queue_size=many") == (
        'For input string: "many" (config.properties, line 1: '
        "job_queue_size must be a whole number from 1 up)"
    )


def test_an_ill_typed_variable_is_named(files: Files) -> None:
    complaint = files.complaint(
        "enable_envvars_config=true", environ={"TS_IO": "", "TS_JOB_QUEUE_SIZE": "x"}
    )
    assert complaint == (
        'For input string: "x" (environment variable TS_JOB_QUEUE_SIZE: job_queue_size must be a'
        " whole number from 1 up)"
    )


def test_what_is_neither_true_nor_false_is_false_as_in_torchserve_and_told(files: Files) -> None:
    config = files.load(
        "limit_max_image_pixels=yes",
        "enable_envvars_config=TRUE",
        environ={"TS_ENABLE_METRICS_API": "1"},
    )
    assert not config.limit_max_image_pixels
    assert not config.enable_metrics_api
    assert config.warnings == [
        'config.properties, line 1: limit_max_image_pixels is "yes", which is neither true nor'
        " false; as in TorchServe it counts as false",
        'environment variable TS_ENABLE_METRICS_API: enable_metrics_api is "1", which is neither'
        " true nor false; as in TorchServe it counts as false",
    ]
    assert config.given["limit_max_image_pixels"] == "yes"  # which is what a snapshot keeps


def test_no_snapshot_keeps_a_simulated_tee(files: Files) -> None:
    for config in (
        files.load("insecure_simulated_tee=true", "attested_tls=true"),
        files.load("attested_tls=true", flags=Flags(insecure_simulated_tee=True)),
    ):
        assert config.insecure_simulated_tee
        assert set(config.given) == {"attested_tls"}


def test_an_environment_that_is_opened_with_another_word_than_true_stays_closed(
    files: Files,
) -> None:
    config = files.load("enable_envvars_config=1", environ={"TS_JOB_QUEUE_SIZE": "5"})
    assert config.job_queue_size == 100


def test_a_bad_escape_names_file_and_line(files: Files) -> None:
    assert files.complaint("a=b", "c=\\u1") == (
        "config.properties, line 2: Malformed \\uxxxx encoding."
    )


def test_a_home_that_does_not_exist(files: Files) -> None:
    complaint = files.complaint(environ={"TS_MODEL_SERVER_HOME": "/nowhere"})
    assert complaint.startswith("Model server home not exist: /nowhere (")


def test_a_home_of_the_file_is_not_looked_for(files: Files) -> None:
    config = files.load("model_server_home=/nowhere")
    assert config.model_server_home == Path("/nowhere")


def test_models_are_parsed(files: Files) -> None:
    config = files.load('models={"m": {"1.0": {"minWorkers": 2, "marName": "m.mar"}}}')
    assert config.models["m"]["1.0"]["minWorkers"] == 2


def test_numbers_of_models_may_be_texts(files: Files) -> None:
    config = files.load('models={"m": {"1.0": {"minWorkers": "2", "batchSize": 3.0}}}')
    assert config.models["m"]["1.0"] == {"minWorkers": 2, "batchSize": 3}


# What is said about it.


def test_an_unknown_key_gets_one_warning_with_its_nearest(files: Files) -> None:
    config = files.load("job_que_size=1", "job_que_size=2", "zzz=1", "version=0.12.0")
    assert config.warnings == [
        "config.properties, line 2: unknown key job_que_size; did you mean job_queue_size?",
        "config.properties, line 3: unknown key zzz",
    ]


def test_an_unknown_metrics_mode_falls_back(files: Files) -> None:
    config = files.load("metrics_mode=Xyz")
    assert config.metrics_mode == "log"
    (warning,) = config.warnings
    assert warning.startswith(
        'Configured metrics mode "Xyz" not supported. Defaulting to "LOG" mode: '
    )


def test_keys_set_in_vain_are_named(files: Files) -> None:
    flags = Flags(log_config="log4j2.xml")
    lines = ("vmargs=-Xmx1g", "job_queue_size=1", "enable_grpc_ssl=true")
    config = files.load(*lines, flags=flags)
    assert config.no_effect == ["enable_grpc_ssl"]
    assert config.in_vain == ["vmargs (Java's)"]


JAVA = ("number_of_netty_threads", "netty_client_threads", "prefer_direct_buffer", "use_native_io")


@pytest.mark.parametrize("name", [*JAVA, "io_ratio", "vmargs"])
def test_keys_of_java_are_accepted_and_said_to_have_no_effect(files: Files, name: str) -> None:
    value = {"prefer_direct_buffer": "true", "use_native_io": "false"}.get(name, "32")
    config = files.load(f"{name}={value}")
    assert config.in_vain == [f"{name} (Java's)"]
    assert config.no_effect == []
    assert config.warnings == []


def test_what_a_snapshot_notes_nobody_set_in_vain(files: Files) -> None:
    notes = ("python=/usr/bin/python3", "number_of_gpu=0", 'model_snapshot={"models": {}}')
    assert files.load(*notes).in_vain == []
    assert files.load("use_native_io=true", "async_logging=false").in_vain == []
    assert files.load(notes[0]).in_vain == ["python (it is the server's own)"]


@pytest.mark.parametrize(("value", "count"), [("True", 1), ("TRUE", 1), ("1", 0), ("", 0)])
def test_profiles_that_the_sandbox_keeps_back_are_warned_of(
    files: Files, value: str, count: int
) -> None:
    warnings = files.load(environ={"TS_BENCHMARK": value}).warnings
    assert ["sandbox=off" in one for one in warnings] == [True] * count
    assert files.load("sandbox=off", environ={"TS_BENCHMARK": value}).warnings == []


def test_what_is_not_served_yet() -> None:
    assert "gRPC" in Config().not_served


@pytest.mark.parametrize(
    ("text", "minutes"),
    [("0.5", 0.5), ("-1", -1), ("1e1", 10), (".5", 0.5), ("2.", 2), (" 2", 2), ("1E+2", 100)],
)
def test_how_long_keys_live(files: Files, text: str, minutes: float) -> None:
    config = files.load(f"token_expiration_min=\\{text}")
    assert config.token_expiration_min == minutes
    assert config.warnings == []
    assert config.no_effect == []


@pytest.mark.parametrize("text", ["abc", "", "NaN", "1_0", "1,5"])
def test_keys_whose_lifetime_is_no_number_live_for_an_hour(files: Files, text: str) -> None:
    config = files.load("job_queue_size=1", f"token_expiration_min={text}")
    assert config.token_expiration_min == 60
    (warning,) = config.warnings
    assert warning == (
        f'For input string: "{text}" (config.properties, line 2: token_expiration_min must be a '
        "number); keys live for 60 minutes"
    )


@pytest.mark.parametrize("name", ["disable_token_authorization", "enable_model_api"])
@pytest.mark.parametrize(
    ("in_file", "flag", "variable", "value"),
    [
        (None, False, None, False),
        ("true", False, None, True),
        ("TRUE", False, None, True),
        ("false", True, None, True),
        ("false", False, "true", True),
        ("true", False, "false", False),
        (None, True, "false", False),
    ],
)
def test_flags_can_only_switch_on_and_the_environment_has_the_last_word(
    files: Files,
    name: str,
    in_file: str | None,
    flag: bool,
    variable: str | None,
    value: bool,
) -> None:
    lines = ["enable_envvars_config=true"] + ([f"{name}={in_file}"] if in_file else [])
    environ = {f"TS_{name.upper()}": variable} if variable else {}
    flags = Flags(
        disable_token_auth=flag and name == "disable_token_authorization",
        enable_model_api=flag and name == "enable_model_api",
    )
    assert getattr(files.load(*lines, environ=environ, flags=flags), name) is value


def test_the_password_is_in_no_representation() -> None:
    assert "hunter2" not in repr(Config(keystore_pass="hunter2"))


def test_every_flag_reaches_its_key(tmp_path: Path) -> None:
    flags = Flags(
        model_store="m",
        workflow_store="w",
        models=("ALL",),
        cpp_log_config="c",
        plugins_path="p",
        disable_token_auth=True,
        enable_model_api=True,
    )
    config = load_config(flags, {}, tmp_path)
    assert config == Config(
        model_store=tmp_path / "m",
        workflow_store=tmp_path / "w",
        load_models=["ALL"],
        cpp_log_config=tmp_path / "c",
        plugins_path=["p"],
        disable_token_authorization=True,
        enable_model_api=True,
        snapshots=FileSnapshots(tmp_path / "logs" / "config"),
        no_effect=["workflow_store"],
        in_vain=["cpp_log_config (no C++ backend here)"],
    )


def test_what_may_be_served_is_not_for_the_environment_to_say(files: Files) -> None:
    environ = {
        "TS_REQUIRE_SEALED_MODELS": "false",
        "TS_TRUSTED_MODELS": "{}",
        "TS_ALLOW_UNSEALED_ON_DISK": "true",
        "TS_UNPACK_DIRECTORY": "/run/models",
    }
    trusted = 'trusted_models={"m": {"1.0": "sha256:00"}}'
    lines = ("enable_envvars_config=true", "require_sealed_models=true", trusted)
    config = files.load(*lines, environ=environ)
    assert config.require_sealed_models
    assert config.trusted_models == {"m": {"1.0": "sha256:00"}}
    assert not config.allow_unsealed_on_disk
    assert config.unpack_directory == Path("/run/models")
    assert config.no_effect == []


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ("{", "Expecting property name"),
        ("[" * 3000, "Malformed JSON"),
        ("[]", "Not an object of models"),
        ('{"m": "1.0"}', "m is no object of versions"),
        ('{"m": {"1.0": {}}}', "m.1.0 is no text"),
        ('{"m": {"1.0": "a", "1.0": "b"}}', "A model or version is there twice"),
    ],
)
def test_trusted_models_that_could_be_misread(files: Files, value: str, reason: str) -> None:
    complaint = files.complaint(f"trusted_models={value}")
    assert reason in complaint
    assert "line 1: trusted_models must be JSON" in complaint


def test_the_documentation_names_what_never_has_an_effect() -> None:
    page = Path(__file__).parents[2] / "docs" / "configuration.md"
    table = page.read_text().partition("## Without any effect")[2].partition("\n## ")[0]
    keys = {one.name: one.metadata["key"] for one in fields(Config) if "key" in one.metadata}
    never = {name for name, key in keys.items() if key.in_vain}
    assert set(re.findall(r"`([a-z_]+)`", table)) == never
