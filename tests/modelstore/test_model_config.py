"""What a model-config.yaml means: clamped, warned about, or refused."""

from pathlib import Path

import pytest
import yaml

from torchkeep.modelstore.errors import InvalidArchive
from torchkeep.modelstore.model_config import (
    MAX_CONFIG_BYTES,
    MAX_CONFIG_NODES,
    ModelConfig,
    parse_model_config,
    read_model_config,
)


def parse(text: str) -> ModelConfig:
    return parse_model_config(text.encode())


def test_every_key_is_read() -> None:
    document = {
        "minWorkers": 2,
        "maxWorkers": 3,
        "batchSize": 4,
        "maxBatchDelay": 50,
        "responseTimeout": 5,
        "startupTimeout": 6,
        "deviceType": "CPU",
        "deviceIds": [0, 1],
        "parallelType": "pp",
        "parallelLevel": 2,
        "maxRetryTimeoutInSec": 0,
        "clientTimeoutInMills": 7,
        "jobQueueSize": 8,
        "useJobTicket": True,
        "sequenceBatching": True,
        "continuousBatching": True,
        "sequenceMaxIdleMSec": 9,
        "sequenceTimeoutMSec": 10,
        "maxSequenceJobQueueSize": 11,
        "maxNumSequence": 12,
        "asyncCommunication": True,
        "useVenv": True,
        "handler": {"anything": [1, None]},
    }
    assert parse(yaml.safe_dump(document)) == ModelConfig(
        min_workers=2,
        max_workers=3,
        batch_size=4,
        max_batch_delay_ms=50,
        response_timeout_s=5,
        startup_timeout_s=6,
        device_type="cpu",
        device_ids=[0, 1],
        parallel_type="pp",
        parallel_level=2,
        max_retry_timeout_s=0,
        client_timeout_ms=7,
        job_queue_size=8,
        use_job_ticket=True,
        sequence_batching=True,
        continuous_batching=True,
        sequence_max_idle_ms=9,
        sequence_timeout_ms=10,
        max_sequence_job_queue_size=11,
        max_num_sequence=12,
        async_communication=True,
        use_venv=True,
        raw=dict(document),
    )


def test_any_config_hides_the_timeouts_of_api_and_configuration() -> None:
    """TorchServe: 120 where the yaml omits them; only without a file do others count."""
    config = parse("handler: {}")
    assert (config.response_timeout_s, config.startup_timeout_s) == (120, 120)
    assert ModelConfig().response_timeout_s is None


@pytest.mark.parametrize("text", ["", "# nothing", "null", "---"])
def test_an_empty_config_counts_as_absent(text: str) -> None:
    assert parse(text) == ModelConfig()


def test_numbers_are_clamped() -> None:
    config = parse("{minWorkers: 0, maxWorkers: -1, batchSize: -5, maxBatchDelay: -1}")
    assert (config.min_workers, config.max_workers, config.batch_size) == (1, 0, 1)
    assert config.max_batch_delay_ms == 0
    assert config.warnings == []
    config = parse("{maxRetryTimeoutInSec: -1, maxNumSequence: 0, maxSequenceJobQueueSize: -1}")
    assert (config.max_retry_timeout_s, config.max_num_sequence) == (0, 1)
    assert config.max_sequence_job_queue_size == 1


@pytest.mark.parametrize(
    ("key", "value", "field", "default"),
    [
        ("batchSize", '"4"', "batch_size", 0),
        ("batchSize", "1.5", "batch_size", 0),
        ("batchSize", "true", "batch_size", 0),
        ("batchSize", "2147483648", "batch_size", 0),
        ("responseTimeout", "0", "response_timeout_s", 120),
        ("jobQueueSize", "0", "job_queue_size", 0),
        ("deviceType", "tpu", "device_type", None),
        ("deviceType", "[]", "device_type", None),
        ("deviceIds", "3", "device_ids", None),
        ("deviceIds", "[]", "device_ids", None),
        ("deviceIds", "[0, -1]", "device_ids", None),
        ("deviceIds", "[0, a]", "device_ids", None),
        ("parallelType", "xx", "parallel_type", ""),
        ("useJobTicket", "1", "use_job_ticket", False),
        ("torchrun", "3", "torchrun", None),
        ("engine", "ipex", "engine", ""),
        ("engine", "[ipex]", "engine", ""),
        ("sandbox", "off", "wants_network", False),
        ("sandbox", "{network: true, files: true}", "wants_network", False),
        ("warmup", "1", "warm_up_inputs", []),
        ("warmup", "[]", "warm_up_inputs", []),
        ("warmup", "{}", "warm_up_inputs", []),
        ("warmup", "{shape: 3}", "warm_up_inputs", []),
        ("warmup", "{shape: []}", "warm_up_inputs", []),
        ("warmup", "{shape: [1, 0]}", "warm_up_inputs", []),
        ("warmup", "{shape: [1, true]}", "warm_up_inputs", []),
        ("warmup", "{shape: [1, 2.0]}", "warm_up_inputs", []),
        ("warmup", "{shape: [1, 1, 1, 1, 1, 1, 1, 1, 1]}", "warm_up_inputs", []),
        ("warmup", "{shape: [134217729]}", "warm_up_inputs", []),
        ("warmup", "{shape: [1], dtype: complex64}", "warm_up_inputs", []),
        ("warmup", "{shape: [1], dtype: [float32]}", "warm_up_inputs", []),
        ("warmup", "{shape: [1], size: 2}", "warm_up_inputs", []),
        ("warmup", "[{shape: [1]}, 3]", "warm_up_inputs", []),
        ("warmup", "{file: row.json}", "warm_up_file", ""),
    ],
)
def test_a_wrong_value_is_warned_about_and_ignored(
    key: str, value: str, field: str, default: object
) -> None:
    config = parse(f"{key}: {value}")
    assert getattr(config, field) == default
    (warning,) = config.warnings
    assert warning.startswith(f"model-config.yaml: {key} is ignored: ")


@pytest.mark.parametrize(
    ("text", "inputs"),
    [
        ("{shape: [1, 3, 224, 224]}", [([1, 3, 224, 224], "float32")]),
        ("{shape: [134217728], dtype: uint8}", [([134217728], "uint8")]),
        (
            "[{shape: [1, 8], dtype: int64}, {shape: [1], dtype: bool}]",
            [([1, 8], "int64"), ([1], "bool")],
        ),
    ],
)
def test_a_warm_up_may_be_shapes(text: str, inputs: list[tuple[list[int], str]]) -> None:
    config = parse(f"warmup: {text}")
    assert config.warnings == []
    assert config.warm_up_inputs == inputs


@pytest.mark.parametrize(
    ("file", "is_taken"),
    [
        ("row.json", True),
        ("sub/row.json", True),
        ("./sub/../row.json", True),
        ("none.json", False),
        ("sub", False),
        ("../outside.json", False),
        ("outward.json", False),
        ("/etc/hostname", False),
        ('"a\\0b"', False),
        ("3", False),
        ("[row.json]", False),
    ],
)
def test_a_warm_up_file_is_one_of_the_archive(tmp_path: Path, file: str, is_taken: bool) -> None:
    model_dir = tmp_path / "model"
    (model_dir / "sub").mkdir(parents=True)
    (tmp_path / "outside.json").write_text("1")
    for path in (model_dir / "row.json", model_dir / "sub/row.json"):
        path.write_text("1")
    (model_dir / "outward.json").symlink_to(tmp_path / "outside.json")
    (model_dir / "model-config.yaml").write_text(f"warmup: {{file: {file}}}")
    config = read_model_config(model_dir / "model-config.yaml")
    assert config.warm_up_file == (file if is_taken else "")
    assert [w.split(": ")[:2] for w in config.warnings] == (
        [] if is_taken else [["model-config.yaml", "warmup is ignored"]]
    )


def test_the_engine_of_a_model() -> None:
    config = parse("engine: {name: Torch, dtype: bfloat16}")
    assert (config.engine, config.dtype, config.warnings) == ("torch", "bfloat16", [])
    config = parse("engine: {name: cuda, dtype: float16, threads: 4}")
    assert (config.engine, config.dtype) == ("", "")
    assert [warning.split(" is ignored")[0] for warning in config.warnings] == [
        "model-config.yaml: engine: name",
        "model-config.yaml: engine: dtype",
        "model-config.yaml: engine: threads",
    ]


def test_parallel_level_counts_only_with_a_parallel_type() -> None:
    assert parse("parallelLevel: 4").parallel_level == 0
    assert parse("{parallelLevel: 4, parallelType: TP}").parallel_level == 4


def test_parallel_type_counts_only_with_a_parallel_level() -> None:
    assert parse("parallelType: pp").parallel_type == ""
    assert parse("{parallelLevel: 0, parallelType: pp}").parallel_type == ""
    assert parse("{parallelLevel: 1, parallelType: pp}").parallel_type == "pp"


def test_torchrun_sets_the_parallel_level() -> None:
    config = parse("{parallelType: pp, parallelLevel: 9, torchrun: {nproc-per-node: 4, odd: 1}}")
    assert config.parallel_level == 4
    assert config.torchrun is not None
    assert config.torchrun["nproc-per-node"] == 4
    assert config.torchrun["rdzv-backend"] == "c10d"
    assert "odd is ignored" in config.warnings[0]


@pytest.mark.parametrize(
    "text",
    [
        "a: [",
        "\t",
        "[1, 2]",
        "just a text",
        "a: !!python/object/apply:os.system ['echo']",
        "a: !!int x",
        "a: !!bool x",
        "a: !!timestamp x",
        "a: 2001-13-45",
        "? [a]\n: 1",
        "[" * 2000,
        "a: 1\n---\nb: 2",
        "a: \udcff",
    ],
)
def test_what_is_no_config_counts_as_absent(text: str) -> None:
    config = parse_model_config(text.encode(errors="surrogateescape"))
    assert config.raw == {}
    assert config.response_timeout_s is None
    assert len(config.warnings) == 1
    assert "\n" not in config.warnings[0]


def nested(first: str, following: str) -> str:
    """Eight levels, each of ten aliases of the one before."""
    levels = (following % ",".join([f"*a{n}"] * 10) for n in range(8))
    return "\n".join([f"a0: &a0 {first}", *(f"a{n}: &a{n} {x}" for n, x in enumerate(levels, 1))])


@pytest.mark.parametrize(
    "bomb",
    [
        nested("[1]", "[%s]"),
        nested("{k: 1}", "{<<: [%s]}"),
        "a: &a [*a]",
        f"[{'1,' * MAX_CONFIG_NODES}]",
    ],
    ids=["lists", "merge keys", "itself", "plain"],
)
def test_values_that_multiply_are_refused(bomb: str) -> None:
    with pytest.raises(InvalidArchive, match="holds more than"):
        parse(bomb)


def test_ordinary_aliases_work() -> None:
    config = parse("base: &base {batchSize: 3}\n<<: *base\nminWorkers: 2\nmaxWorkers: 2")
    assert (config.batch_size, config.min_workers) == (3, 2)


def test_a_missing_config_is_warned_about(tmp_path: Path) -> None:
    config = read_model_config(tmp_path / "c.yaml")
    assert config == ModelConfig(warnings=["c.yaml: no such file in the archive"])


def test_the_size_of_a_config_is_limited(tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_bytes(b"batchSize: 2\n#".ljust(MAX_CONFIG_BYTES, b"#"))
    assert read_model_config(path).batch_size == 2
    path.write_bytes(b"#" * (MAX_CONFIG_BYTES + 1))
    with pytest.raises(InvalidArchive, match="larger than"):
        read_model_config(path)


def test_warnings_are_few_and_short() -> None:
    config = parse("torchrun: {" + ",".join(f"k{n}{'x' * 99}: 1" for n in range(200)) + "}")
    assert len(config.warnings) == 50
    assert max(map(len, config.warnings)) < 250


def test_a_model_may_ask_for_network() -> None:
    config = parse("sandbox: {network: true}")
    assert config.wants_network
    assert config.warnings == []
    assert not parse("sandbox: {network: false}").wants_network
