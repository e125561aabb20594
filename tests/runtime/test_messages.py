"""Messages: what `pack` would not write, `unpack` refuses."""

import contextlib
from typing import Any

import msgpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from torchkeep.runtime.errors import MessageError
from torchkeep.runtime.messages import (
    MAX_ITEMS,
    Load,
    Parallel,
    Prediction,
    Predictions,
    pack,
    unpack,
    unpack_metadata,
)

SANDBOX = ["off", False, [], "", 0, 0, True]
LOAD = ["load", "m", "1.0", "/d", "h.py", "", 1, True, True, {}]


@pytest.mark.parametrize(
    "packed",
    [
        ["nonsense", []],
        [7, []],
        ["loaded", 200, []],
        ["loaded", 200, "text", []],
        ["loaded", "200", "text", "", []],
        ["loaded", True, "text", "", []],
        ["predict", {}, []],
        ["predict", [["id", {}]], []],
        ["predict", [["id", {"k": 1}, []]], []],
        ["predict", [["id", {}, [["name", "type"]]]], []],  # its body is missing
        ["predict", [[b"id", {}, []]], []],
        ["predictions", 200, "", [["id", 200, "", {}]], [], []],
        ["predictions", 200, "", [], [["n", "1", "u", "gauge", {}, ""]], []],
        ["predictions", 200, "", [], [["n", True, "u", "gauge", {}, ""]], []],
        ["chunk", 200, "", [["id", 200, "", {}]], []],  # its body is missing
        ["chunk", 200, "", [["id", 200, "", {}]], [], []],
        ["chunk", "200", "", [], []],
        ["chunk", 200, None, [], []],
        ["chunk", 200, "", [["id", 200, ""]], []],
        ["chunk", 200, "", [["id", "200", "", {}]], []],
        ["chunk", 200, "", [[]] * (MAX_ITEMS + 1), []],
        ["predict", [[]] * (MAX_ITEMS + 1), []],
        ["loaded", 200, "text", 7, []],
        ["load", "m", []],
        [*LOAD, 1, "auto", "float32", [], []],
        [*LOAD, 1, "auto", "float32", [[[1], "int64"]], 7, SANDBOX, "", "", []],
        [*LOAD, 1, "auto", "float32", [[["1"], "int64"]], "", SANDBOX, "", "", []],
        [*LOAD, 1, "auto", "float32", [[[1]]], "", SANDBOX, "", "", []],
        [*LOAD, 1, "auto", "float32", [], "", SANDBOX[:-1], "", "", []],
        [*LOAD, 1, "auto", "float32", [], "", SANDBOX, b"", "", []],
        [*LOAD, 1, "auto", "float32", [], "", SANDBOX, "", 7, []],
    ],
)
def test_a_message_of_the_wrong_shape_is_refused(packed: list[Any]) -> None:
    with pytest.raises(MessageError):
        unpack(packed, [])


def test_bodies_left_over_are_refused() -> None:
    with pytest.raises(MessageError):
        unpack(["loaded", 200, "ok", "", [1]], [b"x"])


@pytest.mark.parametrize(
    "metadata",
    [
        b"",
        b"\xc1",
        msgpack.packb({}),
        msgpack.packb([1]),
        msgpack.packb(["loaded", 1]),
        msgpack.packb(["loaded", [-1]]),
        msgpack.packb(["loaded", ["1"]]),
        msgpack.packb([msgpack.ExtType(1, b"x"), []]),
        b"\x91" * 2000,
        b"\xdd\xff\xff\xff\xff",
    ],
)
def test_metadata_that_is_no_list_is_refused(metadata: bytes) -> None:
    with pytest.raises(MessageError):
        unpack_metadata(metadata)


def test_a_metric_value_may_be_whole() -> None:
    message = Predictions(200, "", [Prediction("a", b"b")])
    metadata, bodies = pack(message)
    packed = unpack_metadata(metadata)
    packed[4] = [["n", 1, "u", "counter", {}, ""]]
    unpacked = unpack(packed, bodies)
    assert isinstance(unpacked, Predictions)
    assert unpacked.metrics[0].value == 1.0


json_like = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.text(max_size=3) | st.binary(max_size=3),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=2), inner),
    max_leaves=20,
)


@given(
    st.sampled_from(["predict", "chunk", "predictions", "load", "loaded"]),
    st.lists(json_like, max_size=15),
)
@settings(max_examples=300, deadline=None)
def test_fuzzed_messages_raise_nothing_but_message_errors(kind: str, fields: list[Any]) -> None:
    with contextlib.suppress(MessageError):
        unpack([kind, *fields, []], [b"body"])


def test_a_load_of_the_right_shape_is_taken() -> None:
    packed = [*LOAD, 1, "auto", "float32", [], "", SANDBOX, "/m.yaml", "text"]
    packed += [[2, True, "m_29500"], 1, "steps", []]
    load = unpack(packed, [])
    assert isinstance(load, Load)
    assert (load.metrics_file, load.metrics_config, load.way) == ("/m.yaml", "text", "steps")
    assert (load.parallel, load.gpu_id) == (Parallel(2, True, "m_29500"), 1)
