"""Weights from files: pickled ones as safely as they allow, and safetensors.

A pickle is a program. It is first read with `weights_only=True`, which takes tensors and plain
containers. One that names other classes (a vocabulary of torchtext, a whole checkpoint) is only
run where the sandbox confines this process, which then gains nothing that the archive's own
code does not have; the log says why it was run.
"""

import json
import logging
import math
import pickle
from typing import Any

import torch

_log = logging.getLogger(__name__)

_MAX_HEADER_BYTES = 100 << 20  # of the format's own definition
_LENGTH_BYTES = 8

# The format's names of data types, where torch has them.
_DTYPES: dict[str, Any] = {
    name: getattr(torch, attribute)
    for name, attribute in {
        "BOOL": "bool",
        "U8": "uint8",
        "U16": "uint16",
        "U32": "uint32",
        "U64": "uint64",
        "I8": "int8",
        "I16": "int16",
        "I32": "int32",
        "I64": "int64",
        "F16": "float16",
        "BF16": "bfloat16",
        "F32": "float32",
        "F64": "float64",
        "F8_E4M3": "float8_e4m3fn",
        "F8_E5M2": "float8_e5m2",
    }.items()
    if hasattr(torch, attribute)
}


class UntrustedPickle(RuntimeError):
    """The file would run code when it is read, and nothing confines this process."""


def load_weights(path: str, map_location: Any, trusts_pickles: bool = False) -> Any:
    """The state dict in a file, whatever of both formats it has."""
    if path.endswith(".safetensors"):
        return load_safetensors(path)
    return load_pickled(path, map_location, trusts_pickles)


def load_pickled(path: str, map_location: Any, trusts_pickles: bool = False) -> Any:
    """What `torch.save` wrote. Raises UntrustedPickle for more than tensors without trust."""
    try:
        return torch.load(path, map_location=map_location, weights_only=True)
    except pickle.UnpicklingError as error:
        reason = _first_sentences(str(error))
        if not trusts_pickles:
            raise UntrustedPickle(
                f"{path} holds more than tensors ({reason}): reading it would run its code, and no"
                " sandbox confines this process. Save the state dict alone, or as .safetensors, or"
                " serve with sandbox=standard."
            ) from error
        _log.warning(
            "%s is read as a pickle with code, confined by the sandbox, because it holds more than"
            " tensors: %s",
            path,
            reason,
        )
    return torch.load(path, map_location=map_location, weights_only=False)


def load_safetensors(path: str) -> dict[str, Any]:
    """The tensors of a .safetensors file, which share one block of memory."""
    with open(path, "rb") as file:
        content = bytearray(file.read())
    length = int.from_bytes(content[:_LENGTH_BYTES], "little")
    start = _LENGTH_BYTES + length
    if len(content) < start or length > _MAX_HEADER_BYTES or len(content) < _LENGTH_BYTES:
        raise ValueError(f"{path} is no safetensors file: its header is cut off")
    try:
        header = json.loads(content[_LENGTH_BYTES:start])
        header.pop("__metadata__", None)
        return {name: _tensor(content, start, entry) for name, entry in header.items()}
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise ValueError(f"{path} is no safetensors file: {error!r}") from error


def _tensor(content: bytearray, start: int, entry: dict[str, Any]) -> Any:
    dtype, shape = _DTYPES[entry["dtype"]], [int(size) for size in entry["shape"]]
    first, last = (start + int(offset) for offset in entry["data_offsets"])
    count = math.prod(shape)
    if min(shape, default=0) < 0 or not start <= first <= last <= len(content):
        raise ValueError(f"a tensor of shape {shape} lies outside the file")
    if last - first != count * dtype.itemsize:
        raise ValueError(f"a tensor of shape {shape} has {last - first} bytes")
    if not count:
        return torch.empty(shape, dtype=dtype)
    if first % dtype.itemsize:  # torch reads numbers from aligned places only
        content, first = content[first:last], 0
    return torch.frombuffer(content, dtype=dtype, count=count, offset=first).reshape(shape)


def _first_sentences(text: str) -> str:
    """What the unpickler did not like, without torch's advice."""
    for line in text.splitlines():
        if "Unsupported" in line or "GLOBAL" in line:
            return " ".join(line.split())[:300]
    return " ".join(text.split())[:300]
