"""Messages: what `pack` would not write, `unpack` refuses."""

import contextlib
import struct
from typing import Any

import msgpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from torchkeep.runtime.errors import MessageError
from torchkeep.runtime.messages import (
    MAX_ITEMS,
    MAX_REPLY_METADATA_BYTES,
    Load,
    Metric,
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


def lists_of(item: bytes, length: int) -> bytes:
    """Metadata of this length: a list of the longest lists that are taken, of one item each."""
    inner = b"\xdc\xff\xff" + item * 0xFFFF
    outer = [inner] * (length // len(inner))
    return b"\xdd" + struct.pack(">I", len(outer)) + b"".join(outer)


@pytest.mark.parametrize("item", [b"\x90", b"\x80"], ids=["lists", "maps"])
def test_a_reply_of_endless_lists_is_refused_before_it_fills_the_memory(item: bytes) -> None:
    metadata = lists_of(item, MAX_REPLY_METADATA_BYTES - 100)
    with pytest.raises(MessageError, match="too many lists and maps"):
        unpack_metadata(metadata, is_reply=True)


def test_a_reply_has_less_room_than_a_request_has() -> None:
    metadata = msgpack.packb(["loaded", 200, "x" * MAX_REPLY_METADATA_BYTES, 0, "", []])
    assert unpack_metadata(metadata)[0] == "loaded"
    with pytest.raises(MessageError, match=f"metadata of {len(metadata)} bytes"):
        unpack_metadata(metadata, is_reply=True)


def test_a_list_longer_than_any_of_ours_is_refused() -> None:
    with pytest.raises(MessageError):
        unpack_metadata(msgpack.packb(["x", [0] * (MAX_ITEMS + 1), []]))


def test_the_largest_reply_is_taken() -> None:
    items = [Prediction(str(number), b"", 200, "", {}) for number in range(MAX_ITEMS)]
    metrics = [Metric("m", 1.0, "ms", "gauge", {}, "")] * MAX_ITEMS
    reply = Predictions(200, "ok", items, metrics)
    metadata, bodies = pack(reply)
    assert unpack(unpack_metadata(metadata, is_reply=True), bodies) == reply


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
    st.sampled_from(["predict", "chunk", "predictions", "load", "loaded", "cancel"]),
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
