"""Envelopes around a handler."""

import json
from typing import Any

import pytest

from ts.context import Context, RequestProcessor
from ts.torch_handler.request_envelope.body import BodyEnvelope
from ts.torch_handler.request_envelope.json import JSONEnvelope
from ts.torch_handler.request_envelope.kserve import KServeEnvelope
from ts.torch_handler.request_envelope.kservev2 import KServev2Envelope


@pytest.fixture
def context() -> Context:
    manifest = {"model": {"modelName": "m", "modelVersion": "1.0"}}
    made = Context("m", "/m", manifest, 2, None, "0.12.0")
    made.request_processor = [RequestProcessor({})]
    made.request_ids = {0: "uuid"}
    return made


def echo(data: Any, context: Any) -> Any:
    return data


def test_a_load_call_passes_through(context: Context) -> None:
    assert BodyEnvelope(lambda data, context: data).handle(None, context) is None


def test_kserve_uses_the_first_request_and_names_the_answer(context: Context) -> None:
    rows = [{"body": {"instances": [1, {"b64": "eA=="}]}}]
    assert KServeEnvelope(echo).handle(rows, context) == [{"predictions": [1, {"b64": "eA=="}]}]
    context.request_processor = [RequestProcessor({"explain": "True"})]
    assert KServeEnvelope(echo).handle(rows, context) == [{"explanations": [1, {"b64": "eA=="}]}]


def test_kserve_of_nothing_is_nothing(context: Context) -> None:
    assert KServeEnvelope(echo).handle([{"body": {"instances": []}}], context) == []
    assert KServeEnvelope(echo).handle([{"body": {"other": []}}], context) is None


def test_json_deals_the_results_out_again(context: Context) -> None:
    rows = [
        {"body": {"instances": [1, 2]}},
        {"data": {"instances": [{"b64": "eA=="}, {"a": {"b64": "eA=="}, "b": 1}]}},
    ]
    envelope = JSONEnvelope(lambda data, context: [str(value) for value in data])
    first, second = envelope.handle(rows, context)
    assert first == '{"predictions": ["1", "2"]}'
    assert json.loads(second) == {"predictions": ["b'x'", "{'a': b'x', 'b': 1}"]}


def test_json_without_any_instance_fails(context: Context) -> None:
    with pytest.raises(ValueError, match="without instances"):
        JSONEnvelope(echo).handle([{"body": {"instances": []}}], context)


def test_json_deals_out_less_where_the_handler_gave_less(context: Context) -> None:
    rows = [{"body": {"instances": [1, 2]}}, {"body": {"instances": [3]}}]
    envelope = JSONEnvelope(lambda data, context: data[:1])
    assert envelope.handle(rows, context) == ['{"predictions": [1]}', '{"predictions": []}']


def test_json_takes_base64_beside_other_names_as_it_is(context: Context) -> None:
    rows = [{"body": {"instances": [{"b64": "eA==", "b": 1}, {"a": {"b64": "eA==", "b": 1}}]}}]
    (answer,) = JSONEnvelope(echo).handle(rows, context)
    assert json.loads(answer) == {"predictions": rows[0]["body"]["instances"]}


@pytest.mark.parametrize(
    ("datatype", "data", "shape", "expected"),
    [
        ("INT64", [1, 2, 3, 4], [2, 2], [[1, 2], [3, 4]]),
        ("FP32", [[1, 2]], [1, 2], [[1, 2]]),
        ("FP32", [1, 2.5], [2, 1], [[1.0], [2.5]]),
        ("INT64", [True, 2], [2], [1, 2]),
        ("BOOL", [0, 2], [2], [0, 2]),
        ("OTHER", ["a", "b"], [2], ["a", "b"]),
        ("INT64", [1, 2, 3, 4], [2, -1], [[1, 2], [3, 4]]),
        ("INT64", [1], [], 1),
        ("INT64", [], [0], []),
        ("BYTES", ["text", "more"], [2], "text"),
    ],
)
def test_kservev2_nests_values_to_their_shape(
    context: Context, datatype: str, data: Any, shape: list[int], expected: Any
) -> None:
    given = {"name": "x", "shape": shape, "datatype": datatype, "data": data}
    seen: list[Any] = []

    def handle(rows: Any, _: Any) -> Any:
        seen.extend(rows)
        return [1]

    KServev2Envelope(handle).handle([{"body": {"inputs": [given]}}], context)
    assert seen == [{**given, "data": expected}]


@pytest.mark.parametrize(
    ("result", "datatype", "data"),
    [
        (1, "INT64", [1]),
        ([1.5, 2.5], "FP64", [1.5, 2.5]),
        (True, "BOOL", [True]),
        ("text", "BYTES", ["text"]),
        ([[1, 2], [3, 4]], "INT64", [1, 2, 3, 4]),
    ],
)
def test_kservev2_answers_one_output_per_input(
    context: Context, result: Any, datatype: str, data: Any
) -> None:
    given = {"name": "x", "shape": [1], "datatype": "INT64", "data": [1]}
    envelope = KServev2Envelope(lambda rows, context: [result])
    assert envelope.handle([{"body": {"inputs": [given]}}], context) == [
        {
            "id": "uuid",
            "model_name": "m",
            "model_version": "1.0",
            "outputs": [{"name": "x", "datatype": datatype, "data": data, "shape": [len(data)]}],
        }
    ]


@pytest.mark.parametrize("shape", [[3], [], [2, 2], [-1, 3], [0, -1]])
def test_kservev2_refuses_values_that_do_not_fill_their_shape(
    context: Context, shape: list[int]
) -> None:
    given = {"name": "x", "shape": shape, "datatype": "INT64", "data": [1, 2]}
    with pytest.raises(ValueError, match="do not fill"):
        KServev2Envelope(echo).handle([{"body": {"inputs": [given]}}], context)


@pytest.mark.parametrize("kind", [bytes, bytearray, str])
def test_kserve_reads_json_without_its_type(context: Context, kind: Any) -> None:
    text = '{"instances": [1], "inputs": []}'
    body = text if kind is str else kind(text, "utf-8")
    assert KServeEnvelope(echo).handle([{"body": body}], context) == [{"predictions": [1]}]
    assert KServev2Envelope(echo).handle([{"body": body}], context) == []


def test_kservev2_wants_a_text_for_an_id(context: Context) -> None:
    with pytest.raises(ValueError, match="must be a text"):
        KServev2Envelope(echo).handle([{"body": {"id": 7, "inputs": []}}], context)


def test_kservev2_echoes_the_requests_id(context: Context) -> None:
    given = {"name": "x", "shape": [1], "datatype": "INT64", "data": [1]}
    rows = [{"body": {"id": "mine", "inputs": [given]}}]
    assert KServev2Envelope(lambda rows, context: [1]).handle(rows, context)[0]["id"] == "mine"
