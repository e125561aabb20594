"""The envelope `kservev2`: KServe's version 2 (Open Inference) protocol."""

from math import prod
from typing import Any

from ts.torch_handler.request_envelope.base import BaseEnvelope, parsed_body


class KServev2Envelope(BaseEnvelope):
    """Only the first request of a batch counts; each of its inputs is a row of the batch."""

    def __init__(self, handle_fn: Any) -> None:
        super().__init__(handle_fn)
        self._inputs: list[Any] = []
        self._id: Any = None

    def parse_input(self, data: Any) -> Any:
        body = parsed_body(data[0])
        self._inputs = body["inputs"]
        self._id = body.get("id") or self.context.get_request_id(0)
        if not isinstance(self._id, str):
            raise ValueError("the id of a request must be a text")
        return [{**one, "data": _converted(one)} for one in self._inputs]

    def format_output(self, data: Any) -> Any:
        model = self.context.manifest["model"]
        outputs = [
            _output(given["name"], result)
            for given, result in zip(self._inputs, data, strict=False)
        ]
        return [
            {
                "id": self._id,
                "model_name": model.get("modelName"),
                "model_version": model.get("modelVersion"),
                "outputs": outputs,
            }
        ]


def _converted(given: dict[str, Any]) -> Any:
    """The values of one input, as lists nested to the input's shape.

    TorchServe: of the datatypes only BYTES means anything, and then the first value is all.
    """
    values = given["data"]
    if given["datatype"] == "BYTES":
        return values[0]
    return _reshaped(_of_one_type(_flattened(values)), given["shape"])


def _of_one_type(values: list[Any]) -> list[Any]:
    """Numbers as an array would hold them: one float makes them all floats."""
    kinds = {type(value) for value in values}
    if len(kinds) < 2 or not kinds <= {bool, int, float}:
        return values
    convert = float if float in kinds else int
    return [convert(value) for value in values]


def _reshaped(values: list[Any], shape: list[int]) -> Any:
    """Nested lists; -1 stands for the one length that follows from the others."""
    known = prod(length for length in shape if length != -1)
    lengths = [len(values) // known if length == -1 and known else length for length in shape]
    if prod(lengths) != len(values):
        raise ValueError(f"{len(values)} values do not fill the shape {shape}")
    if not lengths:
        return values[0]
    for length in reversed(lengths[1:]):
        values = [values[start : start + length] for start in range(0, len(values), length or 1)]
    return values


def _output(name: str, result: Any) -> dict[str, Any]:
    datatype = "FP32" if str(getattr(result, "dtype", "")).endswith("float32") else ""
    if hasattr(result, "tolist"):
        result = result.tolist()
    values = _flattened(result)
    return {
        "name": name,
        "datatype": datatype or _datatype(values[0] if values else 0.0),
        "data": values,
        "shape": [len(values)],
    }


def _datatype(value: Any) -> str:
    match value:
        case bool():
            return "BOOL"
        case int():
            return "INT64"
        case float():
            return "FP64"
        case _:
            return "BYTES"


def _flattened(value: Any) -> list[Any]:
    if not isinstance(value, list | tuple):
        return [value]
    return [leaf for item in value for leaf in _flattened(item)]
