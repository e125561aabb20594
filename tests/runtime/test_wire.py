"""The sealed wire: two objects, no sockets, one test for each attack."""

import contextlib
import struct
from collections.abc import Iterable

import msgpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from torchkeep.runtime import wire as wire_module
from torchkeep.runtime.errors import WireError
from torchkeep.runtime.messages import (
    Body,
    Cancel,
    Chunk,
    InputParameter,
    InputShape,
    Load,
    Loaded,
    Message,
    Metric,
    Parallel,
    Predict,
    Prediction,
    Predictions,
    RequestInput,
)
from torchkeep.runtime.wire import INLINE_BYTES, SECRET_BYTES, TAG_BYTES, Wire, session_keys

SECRET = bytes(range(SECRET_BYTES))


def pair(max_body_bytes: int = 1 << 20) -> tuple[Wire, Wire]:
    return (
        Wire("frontend", SECRET, "9000", max_body_bytes),
        Wire("worker", SECRET, "9000", max_body_bytes),
    )


def joined(buffers: Iterable[Body]) -> bytes:
    return b"".join(bytes(buffer) for buffer in buffers)


def feed(receiver: Wire, data: bytes, step: int | None = None) -> list[Message]:
    messages: list[Message] = []
    view = memoryview(data)
    while view:
        room = receiver.buffer()
        count = min(len(room), len(view), step or len(view))
        room[:count] = view[:count]
        messages += receiver.received(count)
        view = view[count:]
    return messages


def predict(*bodies: bytes) -> Predict:
    return Predict(
        [
            RequestInput("r1", {"Accept": "*/*"}, [InputParameter("body", body, "text/plain")])
            for body in bodies
        ]
    )


LOAD = Load(
    *("m", "1.0", "/models/m", "h.py:f", "", 4, True, False, {"A": "b"}),
    *(2, "ipex", "bfloat16", [InputShape([1, 8], "int64")], "kitten.jpg"),
    metrics_file="/etc/metrics.yaml",
    metrics_config="model_metrics: {}",
    parallel=Parallel(2, True, "m_29500"),
    gpu_id=1,
)
METRIC = Metric("HandlerTime", 1.5, "ms", "gauge", {"Level": "Model"}, "r1")
REPLY = Predictions(200, "ok", [Prediction("r1", b"answer", 418, "tea", {"k": "v"})], [METRIC])


CHUNK = Chunk(200, "more", [Prediction("r1", b"piece", 201, "", {"k": "v"}), Prediction("r2", b"")])


@pytest.mark.parametrize(
    "message",
    [LOAD, Loaded(507, "full", 2, "ipex"), REPLY, CHUNK, predict(b"x"), Predict([]), Cancel("r1")],
)
def test_every_message_crosses_unchanged(message: Message) -> None:
    frontend, worker = pair()
    assert feed(worker, joined(frontend.seal(message))) == [message]
    assert feed(frontend, joined(worker.seal(message))) == [message]
    assert worker.is_idle


@pytest.mark.parametrize(
    "size", [0, 1, 8191, 8192, 8193, 65499, 65515, 65516, 65517, 65536, 200_000]
)
@pytest.mark.parametrize("step", [None, 1000])
def test_bodies_at_the_edges_of_the_scratch_buffer(size: int, step: int | None) -> None:
    frontend, worker = pair()
    message = predict(b"a" * size, b"", b"b" * size)
    data = joined(frontend.seal(message)) + joined(frontend.seal(predict(b"next")))
    assert feed(worker, data, step) == [message, predict(b"next")]


def test_byte_by_byte() -> None:
    frontend, worker = pair()
    assert feed(worker, joined(frontend.seal(REPLY)), step=1) == [REPLY]


def test_keys_differ_by_direction_worker_and_secret() -> None:
    keys = {
        *session_keys(SECRET, "frontend", "9000"),
        *session_keys(SECRET, "frontend", "9001"),
        *session_keys(bytes(SECRET_BYTES), "frontend", "9000"),
    }
    assert len(keys) == 6
    assert session_keys(SECRET, "frontend", "9") == session_keys(SECRET, "worker", "9")[::-1]


def test_session_keys_keep_their_published_value() -> None:
    # A change of the derivation would cut off workers of another build: it must be noticed.
    send, receive = session_keys(SECRET, "frontend", "9000")
    assert send.hex() == ("894dcecd212314777547690a7dce4210183cab5d607912a16218d756f8cec6b8")
    assert receive.hex() == ("764431b7602cb0a8e4ca20a0f642f8d7fbd2e3a647658575489ee4b16d740f23")


def test_a_secret_of_the_wrong_length_is_refused() -> None:
    with pytest.raises(WireError):
        Wire("worker", b"short", "9000")


def test_each_flipped_byte_ends_the_connection() -> None:
    sealed = joined(pair()[0].seal(predict(b"body")))
    for position in range(len(sealed)):
        _, worker = pair()
        altered = bytearray(sealed)
        altered[position] ^= 1
        try:
            assert feed(worker, bytes(altered)) == []  # a longer length waits for more
        except WireError:
            with pytest.raises(WireError):
                worker.received(0)
        else:
            assert position < 4 or not worker.is_idle


def test_truncated_frame_is_not_idle() -> None:
    frontend, worker = pair()
    sealed = joined(frontend.seal(predict(b"body")))
    assert feed(worker, sealed[:-1]) == []
    assert not worker.is_idle


def test_replayed_frame_ends_the_connection() -> None:
    frontend, worker = pair()
    sealed = joined(frontend.seal(predict(b"body")))
    feed(worker, sealed)
    with pytest.raises(WireError):
        feed(worker, sealed)


def test_reordered_frames_end_the_connection() -> None:
    frontend, worker = pair()
    first, second = (joined(frontend.seal(predict(body))) for body in (b"1", b"2"))
    with pytest.raises(WireError):
        feed(worker, second + first)


def test_a_frame_sent_back_to_its_sender_does_not_open() -> None:
    frontend, _ = pair()
    sealed = joined(frontend.seal(predict(b"body")))
    with pytest.raises(WireError):
        feed(frontend, sealed)


def test_a_frame_for_another_worker_does_not_open() -> None:
    sealed = joined(pair()[0].seal(predict(b"body")))
    with pytest.raises(WireError):
        feed(Wire("worker", SECRET, "9001"), sealed)


def test_swapped_bodies_of_equal_length_do_not_open() -> None:
    frontend, worker = pair()
    bodies = (b"1" * INLINE_BYTES, b"2" * INLINE_BYTES)
    prefix, metadata, p1, b1, p2, b2 = frontend.seal(predict(*bodies))
    with pytest.raises(WireError):
        feed(worker, joined([prefix, metadata, p2, b2, p1, b1]))


def test_small_bodies_travel_in_the_first_record() -> None:
    frontend, _ = pair()
    small = predict(b"a" * (INLINE_BYTES - 1), b"", b"b")
    assert len(frontend.seal(small)) == 2
    assert len(frontend.seal(predict(b"a" * INLINE_BYTES, b"b"))) == 6


@pytest.mark.parametrize(
    ("announced", "inline"),
    [([3], b"ab"), ([3], b"abcd"), ([1, 1], b"a"), ([], b"a"), ([INLINE_BYTES + 1], b"a")],
)
def test_bodies_that_are_not_as_announced_end_the_connection(
    announced: list[int], inline: bytes
) -> None:
    frontend, worker = pair()
    metadata = msgpack.packb(["loaded", 200, "", 0, "", announced])
    record = frontend._seal_record(struct.pack(">I", len(metadata)) + metadata + inline)
    with pytest.raises(WireError, match="not as long as announced"):
        feed(worker, joined(record))


@pytest.mark.parametrize("length", [1, 100, 0xFFFFFFFF])
def test_metadata_longer_than_its_record_ends_the_connection(length: int) -> None:
    frontend, worker = pair()
    record = frontend._seal_record(struct.pack(">I", length) + b"\x90"[: length - 1])
    with pytest.raises(WireError, match=r"longer than its record|impossible length"):
        feed(worker, joined(record))


def test_a_length_beyond_the_limit_is_refused_before_it_is_allocated() -> None:
    _, worker = pair()
    with pytest.raises(WireError):
        feed(worker, struct.pack(">I", 0xFFFFFFFF))


@pytest.mark.parametrize("length", [0, TAG_BYTES - 1, TAG_BYTES])
def test_a_record_too_short_to_hold_anything_is_refused(length: int) -> None:
    _, worker = pair()
    with pytest.raises(WireError):
        feed(worker, struct.pack(">I", length))


def test_a_body_beyond_its_limit_is_refused() -> None:
    frontend, worker = pair(max_body_bytes=10)
    assert feed(worker, joined(frontend.seal(predict(b"x" * 10))))
    with pytest.raises(WireError, match="limit is 10"):
        feed(worker, joined(frontend.seal(predict(b"x" * 11))))


def test_a_frame_beyond_its_limit_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wire_module, "MAX_FRAME_BYTES", 15)
    frontend, worker = pair()
    with pytest.raises(WireError, match="too large"):
        feed(worker, joined(frontend.seal(predict(b"x" * 8, b"x" * 8))))


@given(st.binary(max_size=300), st.integers(1, 50))
@settings(max_examples=200, deadline=None)
def test_noise_never_yields_a_message(noise: bytes, step: int) -> None:
    _, worker = pair()
    with contextlib.suppress(WireError):
        assert feed(worker, noise, step) == []


def test_who_forgets_the_keys_seals_and_opens_no_more() -> None:
    frontend, worker = pair()
    frontend.forget_keys()
    with pytest.raises(WireError, match="forgotten"):
        frontend.seal(predict(b"x"))
    with pytest.raises(WireError):
        feed(frontend, joined(worker.seal(predict(b"x"))))
