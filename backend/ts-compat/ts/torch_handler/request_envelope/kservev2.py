"""The envelope `kservev2`: KServe's version 2 (Open Inference) protocol."""

from collections.abc import Callable
from typing import Any

from ts.torch_handler.request_envelope.base import BaseEnvelope

_CONVERSIONS: dict[str, Callable[[Any], Any]] = {
    "BOOL": bool,
    **{f"{sign}INT{bits}": int for sign in ("", "U") for bits in (8, 16, 32, 64)},
    **{f"FP{bits}": float for bits in (16, 32, 64)},
}


class KServev2Envelope(BaseEnvelope):
    """Only the first request of a batch counts; each of its inputs is a row of the batch."""

    def __init__(self, handle_fn: Any) -> None:
        super().__init__(handle_fn)
        self._inputs: list[Any] = []
        self._id: Any = None

    def parse_input(self, data: Any) -> Any:
        body = data[0].get("data") or data[0].get("body")
        self._inputs = body["inputs"]
        self._id = body.get("id") or self.context.get_request_id(0)
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
    """The values of one input in Python's types, as lists nested to the input's shape."""
    values = given["data"]
    if given["datatype"] == "BYTES":
        return values[0]
    convert = _CONVERSIONS[given["datatype"]]
    rows = [convert(value) for value in _flattened(values)]
    for length in reversed(given["shape"][1:]):
        rows = [rows[start : start + length] for start in range(0, len(rows), length)]
    if len(rows) != given["shape"][0]:
        raise ValueError(f"the data of {given['name']} does not fill its shape")
    return rows


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
