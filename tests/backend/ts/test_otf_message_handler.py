"""TorchServe's replies as bytes. The expected ones were taken from TorchServe 0.12 itself."""

import struct
import sys
from typing import Any

import pytest

from ts.context import Context, RequestProcessor
from ts.protocol.otf_message_handler import create_load_model_response, create_predict_response

END = b"\xff\xff\xff\xff"


def text(value: bytes) -> bytes:
    return struct.pack(">i", len(value)) + value


def number(value: int) -> bytes:
    return struct.pack(">i", value)


def item(name: bytes, body: bytes, status: int = 200) -> bytes:
    return text(name) + text(b"") + number(status) + text(b"") + number(0) + text(body)


@pytest.fixture
def context() -> Context:
    made = Context("m", "/", None, 1, None, "0")
    made.request_processor = [RequestProcessor({}), RequestProcessor({})]
    made.set_response_header(0, "k", "v")
    made.set_response_content_type(1, "text/plain")
    made.set_response_status(201, "Created", 1)
    return made


def test_the_reply_to_a_load() -> None:
    assert create_load_model_response(200, "loaded") == number(200) + text(b"loaded") + END
    assert create_load_model_response(500, "ü") == number(500) + text(b"\xc3\xbc") + END


@pytest.mark.parametrize(
    ("output", "body"),
    [
        ("a", b"a"),
        (b"b", b"b"),
        (bytearray(b"d"), b"d"),
        ({"c": 1}, b'{\n  "c": 1\n}'),
        ({"ü": float("nan")}, b'{\n  "\\u00fc": NaN\n}'),
        ([1], b"[\n  1\n]"),
        (5, b"5"),
        (1.5, b"1.5"),
        (True, b"true"),
        (None, b"null"),
    ],
)
def test_what_handlers_return(output: Any, body: bytes) -> None:
    reply = create_predict_response([output], {0: "r"}, "m", 200)
    assert reply == number(200) + text(b"m") + item(b"r", body) + END


@pytest.mark.torch
def test_a_tensor_is_saved() -> None:
    torch = pytest.importorskip("torch")
    reply = create_predict_response(torch.ones(2, 1), {1: "r"}, "m", 200)
    assert reply is not None
    assert b"PK\x03\x04" in reply


def test_without_an_output_each_request_gets_the_error() -> None:
    reply = create_predict_response(None, {0: "r"}, "msg", 503)
    assert reply == number(503) + text(b"msg") + item(b"r", b"error", 503) + END


def test_an_output_that_no_reply_can_hold_fails_all(context: Context) -> None:
    reply = create_predict_response(["a", object()], {0: "r", 1: "s"}, "m", 200, context)
    failed = item(b"r", b"error", 503) + item(b"s", b"error", 503)
    assert reply == number(503) + text(b"Unsupported model output data type.") + failed + END


def test_too_few_outputs_are_an_error() -> None:
    with pytest.raises(IndexError):
        create_predict_response(["a"], {0: "r", 1: "s"}, "m", 200)


def test_a_context_gives_status_and_headers(context: Context) -> None:
    first = text(b"r") + text(b"") + number(200) + text(b"") + number(1)
    first += text(b"k") + text(b"v") + text(b"a")
    second = text(b"s") + text(b"text/plain") + number(201) + text(b"Created") + number(1)
    second += text(b"content-type") + text(b"text/plain") + text(b"b")
    reply = create_predict_response(["a", "b"], {0: "r", 1: "s"}, "m", 200, context)
    assert reply == number(200) + text(b"m") + first + second + END


def test_the_last_piece_of_a_stream_says_so(context: Context) -> None:
    for is_next, word in ((True, b"true"), (False, b"false")):
        reply = create_predict_response(["a"], {0: "r"}, "m", 200, context, is_next)
        assert reply is not None
        assert number(2) + text(b"k") + text(b"v") + text(b"ts_stream_next") + text(word) in reply
    plain = create_predict_response(["a", "b"], {1: "s"}, "m", 200, context)
    assert plain is not None
    assert b"ts_stream_next" not in plain


@pytest.mark.parametrize(("rank", "is_none"), [("0", False), ("", False), ("1", True)])
def test_only_rank_0_answers(monkeypatch: pytest.MonkeyPatch, rank: str, is_none: bool) -> None:
    monkeypatch.setenv("LOCAL_RANK", rank)
    assert (create_predict_response(["a"], {0: "r"}, "m", 200) is None) == is_none
    assert create_load_model_response(200, "x") is not None


def test_torch_is_not_imported_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    assert create_predict_response(["a"], {0: "r"}, "m", 200) is not None
