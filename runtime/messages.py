"""Everything that crosses the wire, as dataclasses; bodies stay raw, outside msgpack.

Nobody changes one. Those that every request needs are not declared frozen all the same: that
would make each of them take three times as long to build.

A message is packed as a small msgpack list, its *metadata*, and a list of *bodies*: the
values of parameters and the answers of handlers, which are never copied into msgpack.
Nothing is believed about the peer: `unpack` checks every type and count, and raises
`MessageError` for anything that `pack` would not have written.
"""

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias, get_args

# By name: a handler may exchange them in msgpack itself, as `msgpack_numpy.patch()` does.
from msgpack import Packer, unpackb

from torchkeep.runtime.errors import MessageError

Body: TypeAlias = bytes | bytearray | memoryview

MAX_METADATA_BYTES = 64 << 20  # headers and names only; bodies are counted apart
_BUFFER_BYTES = 1 << 12  # to begin with; by itself it takes 256 KB, which a handler may not leave
MAX_ITEMS = 1 << 16  # requests of a batch, parameters of a request, metrics of a reply
# Of a stranger, which a worker is to the frontend. A list costs it one byte to send and us a
# hundred to hold, so what it may send is counted twice: by length, and by lists and maps.
MAX_REPLY_METADATA_BYTES = 16 << 20
MAX_REPLY_CONTAINERS = 4 * MAX_ITEMS + 16  # two for each answer, two for each metric
_FEW_BYTES = 1 << 16  # metadata up to this length cannot do harm


# How a loaded model is run: a batch after the other, step by step (continuous batching), or many
# batches at a time (an async handler).
Way: TypeAlias = Literal["batches", "steps", "concurrent"]
WAYS: tuple[Way, ...] = get_args(Way)


@dataclass(slots=True)
class InputParameter:
    """One named value of a request; `content_type` is empty where the client gave none."""

    name: str
    value: Body
    content_type: str = ""


@dataclass(slots=True)
class RequestInput:
    """One request as the handler will see it; header names are spelled as the client did."""

    request_id: str
    headers: dict[str, str]
    parameters: list[InputParameter]


@dataclass(frozen=True, slots=True)
class InputShape:
    """One tensor that a model takes, as `warmup` in model-config.yaml describes it."""

    shape: list[int]
    dtype: str


@dataclass(frozen=True, slots=True)
class Sandbox:
    """How far a process is confined before any code of its model runs."""

    level: str = "off"  # off, standard or strict
    allows_network: bool = False  # in strict; standard leaves it open
    hidden: list[str] = field(default_factory=list)  # paths out of reach, wherever they lie
    scratch: str = ""  # a directory for what it writes
    uid: int = 0  # a user of its own; 0: stays the server's
    gid: int = 0  # of all workers of the model
    tells_errors: bool = True  # what a handler's exceptions say may leave the worker


@dataclass(frozen=True, slots=True)
class Parallel:
    """The processes that run one model together, of which rank 0 is the worker."""

    world_size: int = 1
    asks_all: bool = False  # a batch goes to every rank, else to rank 0 alone
    run_id: str = ""  # what torchrun would call the run


@dataclass(frozen=True, slots=True)
class Load:
    """Frontend to worker: load this model before anything else."""

    model_name: str
    model_version: str
    model_dir: str
    handler: str
    envelope: str
    batch_size: int
    limit_max_image_pixels: bool
    decode_input_request: bool
    environment: dict[str, str]  # the worker's whole environment, already filtered
    threads: int = 1  # to compute with, unless the environment decides
    engine: str = "auto"  # auto, ipex, torch or eager: what may run a model on this CPU
    dtype: str = "float32"  # or bfloat16, where the CPU computes in it
    warm_up_inputs: list[InputShape] = field(default_factory=list)
    warm_up_file: str = ""  # a request body, relative to the model directory
    sandbox: Sandbox = field(default_factory=Sandbox)
    metrics_file: str = ""  # path of metrics.yaml; empty: the one that `ts` brings
    metrics_config: str = ""  # its text, as a confined worker could not read it
    parallel: Parallel = field(default_factory=Parallel)
    gpu_id: int = -1  # the GPU that the handler is told to use; -1: none
    way: Way = "batches"


@dataclass(slots=True)
class Predict:
    """Frontend to worker: answer these requests, in order, as one batch."""

    requests: list[RequestInput]


@dataclass(frozen=True, slots=True)
class Loaded:
    """Worker to frontend: the model is loaded (200), or why it is not (500, 507)."""

    status: int
    message: str
    threads: int = 0  # that torch computes with; 0 where it is not imported
    engine: str = ""  # what runs the model, in one line; empty where that is the handler's affair


@dataclass(slots=True)
class Prediction:
    """The answer to one request; `reason` is the phrase of the status line, often empty."""

    request_id: str
    body: Body
    status: int = 200
    reason: str = ""
    headers: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Chunk:
    """Worker to frontend: pieces of streamed answers; any number comes before `Predictions`.

    A status other than 200 ends the answers to these requests, with that error.
    """

    status: int
    message: str
    items: list[Prediction]


@dataclass(slots=True)
class Metric:
    """One sample of a handler's metric. `request_id` is empty where none applies."""

    name: str
    value: float
    unit: str
    kind: str  # counter, gauge or histogram
    dimensions: dict[str, str]
    request_id: str = ""


@dataclass(slots=True)
class Predictions:
    """Worker to frontend: ends a batch. A status other than 200 answers every request of it."""

    status: int
    message: str
    items: list[Prediction]
    metrics: list[Metric] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Cancel:
    """Frontend to a concurrent worker: nobody waits any more for the batch that begins so.

    It is answered all the same.
    """

    request_id: str


Message: TypeAlias = Load | Predict | Cancel | Loaded | Chunk | Predictions


def pack(message: Message) -> tuple[bytes, list[Body]]:
    """Metadata and bodies of a message; the metadata ends with the length of each body."""
    bodies: list[Body] = []
    match message:
        case Predict(requests):
            packed: list[Any] = ["predict", []]
            for request in requests:
                parameters = [[p.name, p.content_type] for p in request.parameters]
                bodies.extend(p.value for p in request.parameters)
                packed[1].append([request.request_id, request.headers, parameters])
        case Chunk(status, text, items):
            packed = ["chunk", status, text, _rows(items)]
            bodies.extend(i.body for i in items)
        case Predictions(status, text, items, metrics):
            bodies.extend(i.body for i in items)
            samples = [
                [m.name, m.value, m.unit, m.kind, m.dimensions, m.request_id] for m in metrics
            ]
            packed = ["predictions", status, text, _rows(items), samples]
        case Load():
            packed = ["load", *(getattr(message, name) for name in Load.__slots__)]
            place = 1 + Load.__slots__.index("warm_up_inputs")
            packed[place] = [[one.shape, one.dtype] for one in message.warm_up_inputs]
            place = 1 + Load.__slots__.index("sandbox")
            packed[place] = [getattr(message.sandbox, name) for name in Sandbox.__slots__]
            place = 1 + Load.__slots__.index("parallel")
            packed[place] = [getattr(message.parallel, name) for name in Parallel.__slots__]
        case Cancel(request_id):
            packed = ["cancel", request_id]
        case Loaded(status, text, threads, engine):
            packed = ["loaded", status, text, threads, engine]
    packed.append([len(body) for body in bodies])
    return Packer(buf_size=_BUFFER_BYTES).pack(packed), bodies


def unpack_metadata(metadata: Body, is_reply: bool = False) -> list[Any]:
    """The outer list of a metadata record; its last item is the list of body lengths.

    `is_reply`: it comes from a worker, so it may be made to fill our memory.
    """
    if len(metadata) > (MAX_REPLY_METADATA_BYTES if is_reply else MAX_METADATA_BYTES):
        raise MessageError(f"metadata of {len(metadata)} bytes")
    try:
        if len(metadata) <= _FEW_BYTES:
            packed = unpackb(metadata, strict_map_key=True, max_ext_len=0)
        else:
            passed = _container_counter(MAX_REPLY_CONTAINERS) if is_reply else None
            packed = unpackb(
                metadata,
                strict_map_key=True,
                max_ext_len=0,
                max_array_len=MAX_ITEMS,
                max_map_len=MAX_ITEMS,
                list_hook=passed,
                object_hook=passed,
            )
    except (ValueError, RecursionError) as error:
        raise MessageError("metadata is no msgpack") from error
    if not isinstance(packed, list) or len(packed) < 2:
        raise MessageError("metadata is no list")
    lengths = _list(packed[-1], int)
    if lengths and min(lengths) < 0:
        raise MessageError("a body has a negative length")
    return packed


def _container_counter(limit: int) -> Callable[[Any], Any]:
    """Lets lists and maps pass, as msgpack completes them, until there are too many."""
    count = itertools.count(1)

    def passed(container: Any) -> Any:
        if next(count) > limit:
            raise MessageError("metadata holds too many lists and maps")
        return container

    return passed


def unpack(packed: list[Any], bodies: Sequence[Body]) -> Message:
    """The message that `pack` turned into this metadata and these bodies."""
    kind, *fields = packed[:-1]
    remaining = iter(bodies)
    try:
        match kind:
            case "predict":
                (rows,) = fields
                message: Message = Predict([_request(row, remaining) for row in _list(rows, list)])
            case "chunk":
                status, text, rows = fields
                items = [_prediction(row, remaining) for row in _list(rows, list)]
                message = Chunk(_is(status, int), _is(text, str), items)
            case "predictions":
                status, text, rows, samples = fields
                message = Predictions(
                    _is(status, int),
                    _is(text, str),
                    [_prediction(row, remaining) for row in _list(rows, list)],
                    [_metric(row) for row in _list(samples, list)],
                )
            case "cancel":
                (request_id,) = fields
                message = Cancel(_is(request_id, str))
            case "load":
                message = _load(fields)
            case "loaded":
                status, text, threads, engine = fields
                message = Loaded(
                    _is(status, int), _is(text, str), _is(threads, int), _is(engine, str)
                )
            case _:
                raise MessageError("unknown kind of message")
    except (ValueError, StopIteration) as error:
        raise MessageError(f"a {kind} message has the wrong shape") from error
    if next(remaining, None) is not None:
        raise MessageError("bodies are left over")
    return message


def _rows(items: list[Prediction]) -> list[Any]:
    return [[i.request_id, i.status, i.reason, i.headers] for i in items]


def _request(row: list[Any], bodies: Any) -> RequestInput:
    request_id, headers, parameters = row
    return RequestInput(
        _is(request_id, str),
        _strings(headers),
        [
            InputParameter(_is(name, str), _next(bodies), _is(content_type, str))
            for name, content_type in _list(parameters, list)
        ],
    )


def _prediction(row: list[Any], bodies: Any) -> Prediction:
    request_id, status, reason, headers = row
    return Prediction(
        _is(request_id, str), _next(bodies), _is(status, int), _is(reason, str), _strings(headers)
    )


def _metric(row: list[Any]) -> Metric:
    name, value, unit, kind, dimensions, request_id = row
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise MessageError("the value of a metric is no number")
    return Metric(
        _is(name, str),
        float(value),
        _is(unit, str),
        _is(kind, str),
        _strings(dimensions),
        _is(request_id, str),
    )


def _load(fields: list[Any]) -> Load:
    name, version, path, handler, envelope, batch, pixels, decode, environment, *rest = fields
    threads, engine, dtype, inputs, file, sandbox, metrics_file, metrics_config, *rest = rest
    parallel, gpu_id, way = rest
    if way not in WAYS:
        raise MessageError("unknown way of running")
    return Load(
        _is(name, str),
        _is(version, str),
        _is(path, str),
        _is(handler, str),
        _is(envelope, str),
        _is(batch, int),
        _is(pixels, bool),
        _is(decode, bool),
        _strings(environment),
        _is(threads, int),
        _is(engine, str),
        _is(dtype, str),
        [_input_shape(row) for row in _list(inputs, list)],
        _is(file, str),
        _sandbox(_is(sandbox, list)),
        _is(metrics_file, str),
        _is(metrics_config, str),
        _parallel(_is(parallel, list)),
        _is(gpu_id, int),
        way,
    )


def _sandbox(fields: list[Any]) -> Sandbox:
    level, network, hidden, scratch, uid, gid, tells_errors = fields
    return Sandbox(
        _is(level, str),
        _is(network, bool),
        _list(hidden, str),
        _is(scratch, str),
        _is(uid, int),
        _is(gid, int),
        _is(tells_errors, bool),
    )


def _parallel(fields: list[Any]) -> Parallel:
    world_size, asks_all, run_id = fields
    return Parallel(_is(world_size, int), _is(asks_all, bool), _is(run_id, str))


def _input_shape(row: list[Any]) -> InputShape:
    shape, dtype = row
    return InputShape(_list(shape, int), _is(dtype, str))


def _next(bodies: Any) -> Body:
    body: Body | None = next(bodies, None)
    if body is None:
        raise MessageError("a body is missing")
    return body


def _is(value: Any, kind: type) -> Any:
    if type(value) is not kind:
        raise MessageError(f"expected {kind.__name__}, got {type(value).__name__}")
    return value


def _list(value: Any, item: type) -> list[Any]:
    if type(value) is not list or len(value) > MAX_ITEMS:
        raise MessageError("expected a list of bounded length")
    for one in value:
        if type(one) is not item:
            raise MessageError(f"expected {item.__name__}, got {type(one).__name__}")
    return value


def _strings(value: Any) -> dict[str, str]:
    if type(value) is not dict or len(value) > MAX_ITEMS:
        raise MessageError("expected a map of bounded length")
    for name, text in value.items():
        if type(name) is not str or type(text) is not str:
            raise MessageError("expected a map of strings")
    return value
