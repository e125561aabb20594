"""model-config.yaml: how an archive wants to be served.

The file is optional and its mistakes are forgiven, as in TorchServe: a value of the wrong type
is warned about and ignored, a file that is no yaml counts as absent. Only what would harm the
worker that reads the same file is refused: an oversized one, or aliases that multiply.
"""

import math
import reprlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import yaml

from torchkeep.modelstore.errors import InvalidArchive

MAX_CONFIG_BYTES = 256 << 10  # room for a chat template; pure-Python yaml needs seconds for more
MAX_CONFIG_NODES = 20_000  # counted with every alias written out
MAX_WARNINGS = 50  # as many as a reader of the log will bear
MAX_INT = 2**31 - 1  # TorchServe reads Java ints and calls a longer number a wrong type
ENGINES = ("ipex", "torch", "eager")
ENGINE_DTYPES = ("float32", "bfloat16")
INPUT_DTYPES = ("float32", "float64", "bfloat16", "int64", "int32", "uint8", "bool")
MAX_INPUTS = 16
MAX_DIMENSIONS = 8
MAX_INPUT_ELEMENTS = 1 << 27  # of one input: 512 MB of float32
PARALLEL_TYPES = ("pp", "tp", "pptp", "custom")
DEFAULT_TIMEOUT_S = 120

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class ModelConfig:
    """The frontend's keys, clamped as TorchServe clamps them; 0, "" or None where unset.

    TorchServe quirk: any config file hides the timeouts of API and configuration. So
    `response_timeout_s` and `startup_timeout_s` are None without a file, and never None with
    one. `raw` is the whole document and `warnings` say what was ignored, for the log.
    """

    min_workers: int = 0
    max_workers: int = 0
    batch_size: int = 0
    max_batch_delay_ms: int = 0
    response_timeout_s: int | None = None
    startup_timeout_s: int | None = None
    device_type: str | None = None
    device_ids: list[int] | None = None
    parallel_type: str = ""
    parallel_level: int = 0
    torchrun: dict[str, int | str] | None = None
    max_retry_timeout_s: int = 300
    client_timeout_ms: int = 0
    job_queue_size: int = 0
    use_job_ticket: bool = False
    sequence_batching: bool = False
    continuous_batching: bool = False
    sequence_max_idle_ms: int = 0
    sequence_timeout_ms: int = 0
    max_sequence_job_queue_size: int = 1
    max_num_sequence: int = 1
    async_communication: bool = False
    use_venv: bool = False
    shared_weights: bool | None = None  # ours; None: where it is known to be safe
    # Ours: what runs the model, and what it is made ready with.
    engine: str = ""
    dtype: str = ""
    warm_up_inputs: list[tuple[list[int], str]] = field(default_factory=list)
    warm_up_file: str = ""
    wants_network: bool = False  # ours: where the sandbox is strict
    raw: dict[object, object] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)


def read_model_config(path: Path) -> ModelConfig:
    """The config at `path`; refuses only what would harm a reader."""
    name = path.name
    if not path.is_file():
        return ModelConfig(warnings=[f"{name}: no such file in the archive"])
    with path.open("rb") as file:
        text = file.read(MAX_CONFIG_BYTES + 1)
    if len(text) > MAX_CONFIG_BYTES:
        raise InvalidArchive(f"{name} is larger than {MAX_CONFIG_BYTES} bytes.")
    return parse_model_config(text, name, path.parent)


def parse_model_config(
    text: bytes, name: str = "model-config.yaml", model_dir: Path | None = None
) -> ModelConfig:
    """Check and pick the keys of a config; `name` is for warnings.

    Files that the config names are looked for in `model_dir`.
    """
    # PyYAML's constructors let their own conversion errors through (`!!int x`, month 13).
    conversion_errors = (ValueError, TypeError, LookupError, AttributeError, RecursionError)
    try:
        _refuse_alias_bomb(yaml.compose(text, Loader=yaml.SafeLoader), name)
        document = yaml.safe_load(text)
    except (yaml.YAMLError, *conversion_errors) as error:
        reason = " ".join(str(error).split())
        return ModelConfig(warnings=[f"{name} is ignored, it is no yaml: {reason}"])
    if document is None:
        return ModelConfig()
    if not isinstance(document, dict):
        return ModelConfig(warnings=[f"{name} is ignored, it is no map of keys"])
    return _pick(_Reader(document, name), model_dir)


def _refuse_alias_bomb(root: yaml.Node | None, name: str) -> None:
    """Count the nodes as if every alias were a copy, which is what merge keys make of them."""
    remaining = [root]
    visited = 0
    while remaining:
        visited += 1
        if visited > MAX_CONFIG_NODES:
            raise InvalidArchive(f"{name} holds more than {MAX_CONFIG_NODES} values.")
        match remaining.pop():
            case yaml.MappingNode(value=pairs):
                remaining.extend(node for pair in pairs for node in pair)
            case yaml.SequenceNode(value=items):
                remaining.extend(items)


def _pick(reader: "_Reader", model_dir: Path | None) -> ModelConfig:
    parallel_type = reader.choice("parallelType", PARALLEL_TYPES)
    torchrun = reader.torchrun()
    parallel_level = reader.integer("parallelLevel", 0, at_least=1)
    if torchrun is not None and isinstance(torchrun["nproc-per-node"], int):
        parallel_level = torchrun["nproc-per-node"]
    engine, dtype = reader.engine()
    warm_up_inputs, warm_up_file = reader.warm_up(model_dir)
    return ModelConfig(
        min_workers=reader.integer("minWorkers", 0, clamp=1),
        max_workers=reader.integer("maxWorkers", 0, clamp=0),
        batch_size=reader.integer("batchSize", 0, clamp=1),
        max_batch_delay_ms=reader.integer("maxBatchDelay", 0, clamp=0),
        response_timeout_s=reader.integer("responseTimeout", DEFAULT_TIMEOUT_S, at_least=1),
        startup_timeout_s=reader.integer("startupTimeout", DEFAULT_TIMEOUT_S, at_least=1),
        device_type=reader.choice("deviceType", ("cpu", "gpu")) or None,
        device_ids=reader.device_ids(),
        # TorchServe: neither counts without the other
        parallel_type=parallel_type if parallel_level > 0 else "",
        parallel_level=parallel_level if parallel_type else 0,
        torchrun=torchrun,
        max_retry_timeout_s=reader.integer("maxRetryTimeoutInSec", 300, clamp=0),
        client_timeout_ms=reader.integer("clientTimeoutInMills", 0, clamp=0),
        job_queue_size=reader.integer("jobQueueSize", 0, at_least=1),
        use_job_ticket=reader.boolean("useJobTicket"),
        sequence_batching=reader.boolean("sequenceBatching"),
        continuous_batching=reader.boolean("continuousBatching"),
        sequence_max_idle_ms=reader.integer("sequenceMaxIdleMSec", 0, clamp=0),
        sequence_timeout_ms=reader.integer("sequenceTimeoutMSec", 0, clamp=0),
        max_sequence_job_queue_size=reader.integer("maxSequenceJobQueueSize", 1, clamp=1),
        max_num_sequence=reader.integer("maxNumSequence", 1, clamp=1),
        async_communication=reader.boolean("asyncCommunication"),
        use_venv=reader.boolean("useVenv"),
        shared_weights=reader.optional_boolean("shared_weights"),
        engine=engine,
        dtype=dtype,
        warm_up_inputs=warm_up_inputs,
        warm_up_file=warm_up_file,
        wants_network=reader.wants_network(),
        raw=reader.document,
        warnings=reader.warnings,
    )


def _is_inside(file: str, directory: Path) -> bool:
    try:
        path = (directory / file).resolve()
        return path.is_file() and path.is_relative_to(directory.resolve())
    except (OSError, ValueError):  # such as a name with a zero byte
        return False


def _input_shape(value: object) -> tuple[list[int], str] | None:
    """The shape and dtype of one input, float32 where it says none; None for anything else."""
    if not isinstance(value, dict) or not {"shape"} <= value.keys() <= {"shape", "dtype"}:
        return None
    shape, dtype = value["shape"], value.get("dtype", "float32")
    if not isinstance(shape, list) or not 0 < len(shape) <= MAX_DIMENSIONS:
        return None
    if any(type(size) is not int or size < 1 for size in shape):
        return None
    if math.prod(shape) > MAX_INPUT_ELEMENTS or dtype not in INPUT_DTYPES:
        return None
    return shape, dtype


class _Reader:
    """Typed access to a yaml map; collects a warning for each value it ignores."""

    def __init__(self, document: Mapping[object, object], name: str) -> None:
        self.document = dict(document)
        self.name = name
        self.warnings: list[str] = []

    def integer(
        self, key: str, default: int, *, clamp: int | None = None, at_least: int | None = None
    ) -> int:
        """A number raised to `clamp`, or ignored below `at_least`."""
        value = self.document.get(key)
        if value is None:
            return default
        # yaml's true is a Python int as well
        if not isinstance(value, int) or isinstance(value, bool) or abs(value) > MAX_INT:
            return self._ignore(key, value, "an integer", default)
        if at_least is not None and value < at_least:
            return self._ignore(key, value, f"at least {at_least}", default)
        return value if clamp is None else max(value, clamp)

    def boolean(self, key: str) -> bool:
        return bool(self.optional_boolean(key))

    def optional_boolean(self, key: str) -> bool | None:
        value = self.document.get(key)
        if value is None or isinstance(value, bool):
            return value
        return self._ignore(key, value, "true or false", None)

    def choice(self, key: str, choices: tuple[str, ...]) -> str:
        """One of the choices, written in any case; the empty text where unset."""
        value = self.document.get(key)
        if value is None:
            return ""
        text = value.lower() if isinstance(value, str) else value
        if isinstance(text, str) and text in choices:
            return text
        return self._ignore(key, value, f"one of {', '.join(choices)}", "")

    def device_ids(self) -> list[int] | None:
        value = self.document.get("deviceIds")
        if value is None:
            return None
        ids = value if isinstance(value, list) else []
        numbers = [n for n in ids if isinstance(n, int) and not isinstance(n, bool)]
        # TorchServe: one invalid id makes the whole list count as unset
        if not ids or len(numbers) < len(ids) or min(numbers) < 0 or max(numbers) > MAX_INT:
            return self._ignore("deviceIds", value, "a list of device numbers", None)
        return numbers

    def torchrun(self) -> dict[str, int | str] | None:
        """The options with their defaults filled in; None without a `torchrun` section."""
        section = self.document.get("torchrun")
        if section is None:
            return None
        if not isinstance(section, dict):
            return self._ignore("torchrun", section, "a map", None)
        options: dict[str, int | str] = {
            "nnodes": 1,
            "nproc-per-node": 1,
            "rdzv-backend": "c10d",
            "rdzv-endpoint": "",
            "rdzv-conf": "",
            "monitor-interval": 5,
            "node-rank": 0,
            "OMP_NUMBER_THREADS": 1,
        }
        reader = _Reader(section, f"{self.name}: torchrun")
        for key, value in section.items():
            default = options.get(key)
            if isinstance(default, int):
                options[key] = reader.integer(key, default, at_least=0 if default == 0 else 1)
            elif isinstance(default, str) and isinstance(value, str):
                options[key] = value
            else:
                expected = "a known option" if default is None else "a text"
                reader._ignore(str(key), value, expected, None)
        self.warnings += reader.warnings
        return options

    def engine(self) -> tuple[str, str]:
        """The engine's name and data type; empty texts where unset."""
        section = self.document.get("engine")
        if section is None:
            return "", ""
        if not isinstance(section, dict):
            return self._ignore("engine", section, "a map of name and dtype", ("", ""))
        reader = _Reader(section, f"{self.name}: engine")
        chosen = reader.choice("name", ENGINES), reader.choice("dtype", ENGINE_DTYPES)
        for key in section.keys() - {"name", "dtype"}:
            reader._ignore(str(key), section[key], "the keys name and dtype", None)
        self.warnings += reader.warnings
        return chosen

    def wants_network(self) -> bool:
        """What `sandbox: {network: true}` asks for."""
        section = self.document.get("sandbox")
        if section is None:
            return False
        if not isinstance(section, dict) or not section.keys() <= {"network"}:
            return self._ignore("sandbox", section, "{network: true}", False)
        reader = _Reader(section, f"{self.name}: sandbox")
        wants_network = reader.boolean("network")
        self.warnings += reader.warnings
        return wants_network

    def warm_up(self, model_dir: Path | None) -> tuple[list[tuple[list[int], str]], str]:
        """The shapes of the model's inputs, or a request body in the archive."""
        value = self.document.get("warmup")
        if value is None:
            return [], ""
        if isinstance(value, dict) and value.keys() == {"file"}:
            file = value["file"]
            if model_dir is not None and isinstance(file, str) and _is_inside(file, model_dir):
                return [], file
            return self._ignore("warmup", value, "a file of the archive", ([], ""))
        inputs = value if isinstance(value, list) else [value]
        shapes = [shape for one in inputs if (shape := _input_shape(one))]
        if len(shapes) != len(inputs) or not 0 < len(inputs) <= MAX_INPUTS:
            expected = "{shape: [1, 3, 224, 224], dtype: float32}, a list of such, or {file: name}"
            return self._ignore("warmup", value, expected, ([], ""))
        return shapes, ""

    def _ignore(self, key: str, value: object, expected: str, default: _T) -> _T:
        # reprlib, because the aliases of a hostile file print as gigabytes
        shown, key = reprlib.repr(value), key[:80]
        if len(self.warnings) < MAX_WARNINGS:
            self.warnings.append(f"{self.name}: {key} is ignored: {shown}, expected {expected}")
        return default
