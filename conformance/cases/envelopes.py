"""The bodies of the service envelopes."""

import json

from conformance.case import (
    FORM,
    JSON,
    MULTIPART,
    Case,
    Scenario,
    form,
    infer,
    register,
)


def instances(*values: object, **more: object) -> bytes:
    return json.dumps({"instances": list(values), **more}).encode()


def inputs(*given: dict[str, object], **more: object) -> bytes:
    return json.dumps({"inputs": list(given), **more}).encode()


def tensor(datatype: str, shape: list[int], data: object, name: str = "row") -> dict[str, object]:
    return {"name": name, "shape": shape, "datatype": datatype, "data": data}


V1 = "/v1/models/rows:predict"
V2 = "/v2/models/rows/infer"
NO_JSON = [
    ("empty body", b"", None),
    ("bytes", b"\x00\xff", None),
    ("text", b"text", "text/plain"),
    ("json without its type", b'{"instances": [1], "inputs": []}', None),
    ("json that is no object", b"[1, 2]", JSON),
    ("json of another shape", b'{"other": 1}', JSON),
    ("broken json", b'{"instances": [', JSON),
    ("instances that are no list", b'{"instances": 3, "inputs": 3}', JSON),
    ("instances that are null", b'{"instances": null, "inputs": null}', JSON),
    ("instances that are a text", b'{"instances": "ab", "inputs": "ab"}', JSON),
]
INSTANCES = [
    ("one instance", instances(1)),
    ("instances", instances(1, 2.5, None, True, "text", [1, [2]], {"a": 1})),
    ("base64 instances", instances({"b64": "eA=="}, {"a": {"b64": "eA=="}, "b": 1})),
    ("base64 beside a name", instances({"b64": "eA==", "b": 1})),
    ("base64 that is none", instances({"b64": "%"})),
    ("base64 of a number", instances({"b64": 1})),
    ("no instances", instances()),
    ("instances and more", instances(1, parameters={"a": 1})),
    ("too few answers", instances("too-short", 1)),
]


def envelope(name: str, *cases: Case, model: str = "rows") -> Scenario:
    """A server whose models all stand in this envelope."""
    return Scenario(
        f"envelope {name}",
        archives=("rows", "row_pairs"),
        config={"service_envelope": name},
        cases=[
            register("rows"),
            *cases,
            *(infer(title, V2 if name == "kservev2" else V1, body, content_type)
              for title, body, content_type in NO_JSON),
            infer("a form", V1, form(
                ('Content-Disposition: form-data; name="data"; filename="f"\r\n'
                 f"Content-Type: {JSON}", b'{"instances": [1], "inputs": []}')), MULTIPART),
            infer("an empty form", V1, b"", FORM),
            infer("after all", V1, instances(1), JSON),
        ],
    )  # fmt: skip


ENVELOPE_KSERVE = envelope(
    "kserve",
    *(infer(title, V1, body, JSON) for title, body in INSTANCES),
    infer("explanations", "/v1/models/rows:explain", instances(1), JSON),
    infer("by predictions", "/predictions/rows", instances(1), JSON),
    infer("by explanations", "/explanations/rows", instances(1), JSON),
    infer("by invoke", "/models/rows/invoke", instances(1), JSON),
)
ENVELOPE_JSON = envelope(
    "json",
    *(infer(title, V1, body, JSON) for title, body in INSTANCES),
    infer("explanations", "/v1/models/rows:explain", instances(1), JSON),
    register("row_pairs"),
    infer("a batch", "/predictions/row_pairs", instances(1, 2), JSON, batch_of=2),
)
ENVELOPE_BODY = envelope(
    "body",
    *(infer(title, V1, body, JSON) for title, body in INSTANCES[:4]),
    infer("explanations", "/v1/models/rows:explain", instances(1), JSON),
    register("row_pairs"),
    infer("a batch", "/predictions/row_pairs", b"x", batch_of=2),
)
ANSWER_KINDS = ["int", "float", "bool", "str", "dict", "ints", "nested", "empty"]
ENVELOPE_KSERVE_V2 = envelope(
    "kservev2",
    *(infer(f"{datatype} {data} as {shape}", V2, inputs(tensor(datatype, shape, data)), JSON)
      for datatype, shape, data in (
          ("BOOL", [2], [True, False]), ("BOOL", [2], [0, 2]), ("UINT8", [1], [255]),
          ("UINT8", [1], [256]), ("INT8", [1], [-1]), ("INT16", [2], [1, 2]), ("UINT16", [1], [1]),
          ("INT32", [2, 2], [1, 2, 3, 4]), ("UINT32", [1], [1]), ("INT64", [1, 2], [[1, 2]]),
          ("UINT64", [1], [1]), ("FP16", [1], [1.5]), ("FP32", [2, 1], [1, 2.5]),
          ("FP32", [1], [0.1]), ("FP64", [1], [0.1]), ("FP64", [1], ["x"]), ("INT64", [1], [1.5]),
          ("INT64", [3], [1, 2]), ("INT64", [-1], [1, 2]), ("INT64", [], [1]), ("INT64", [0], []),
          ("BYTES", [1], ["text"]), ("BYTES", [2], ["one", "two"]), ("BYTES", [0], []),
          ("OTHER", [1], [1]), ("INT64", [1], 1))),
    *(infer(f"answer {kind}", V2, inputs(tensor("INT64", [1], [1], name=kind)), JSON)
      for kind in ANSWER_KINDS),
    infer("two inputs", V2,
          inputs(tensor("INT64", [1], [1], "int"), tensor("INT64", [1], [1], "str")), JSON),
    infer("an id", V2, inputs(tensor("INT64", [1], [1], "int"), id="mine"), JSON),
    infer("an id that is a number", V2, inputs(tensor("INT64", [1], [1], "int"), id=7), JSON),
    infer("an empty id", V2, inputs(tensor("INT64", [1], [1], "int"), id=""), JSON),
    infer("more members", V2,
          inputs({**tensor("INT64", [1], [1]), "parameters": {"a": 1}}, outputs=[{"name": "o"}]),
          JSON),
    infer("no inputs", V2, inputs(), JSON),
    infer("an input without data", V2, inputs({"name": "row"}), JSON),
    infer("explanations", "/v2/models/rows/explain", inputs(tensor("INT64", [1], [1], "int")),
          JSON),
    infer("by predictions", "/predictions/rows", inputs(tensor("INT64", [1], [1], "int")), JSON),
)  # fmt: skip


SCENARIOS = [ENVELOPE_KSERVE, ENVELOPE_JSON, ENVELOPE_BODY, ENVELOPE_KSERVE_V2]
