"""TorchServe's JSON, reason phrases and headers."""

import pytest

from torchkeep.frontend.errors import BadRequest, WorkerFailed
from torchkeep.frontend.responses import (
    Cors,
    Reply,
    error_reply,
    prediction_reply,
    pretty_json,
    standard_phrase,
    with_common_headers,
)
from torchkeep.runtime.messages import Prediction


def test_json_is_pretty_and_ends_with_a_newline() -> None:
    assert pretty_json({"status": "Healthy"}) == b'{\n  "status": "Healthy"\n}\n'


def test_json_is_not_escaped() -> None:
    assert pretty_json("<ü>") == '"<ü>"\n'.encode()


def test_only_the_line_ends_of_javascript_are_escaped() -> None:
    assert pretty_json("\u2028\u2029\x7f") == b'"\\u2028\\u2029\x7f"\n'


def test_error_json_has_code_type_and_message_in_this_order() -> None:
    reply = error_reply(BadRequest("Parameter url is required."))
    assert reply.status == 400
    assert bytes(reply.body).decode().splitlines() == [
        "{",
        '  "code": 400,',
        '  "type": "BadRequestException",',
        '  "message": "Parameter url is required."',
        "}",
    ]


def test_message_is_missing_where_there_is_none() -> None:
    assert b"message" not in bytes(error_reply(BadRequest("")).body)


def test_text_of_an_unexpected_error_stays_here() -> None:
    assert b"secret" not in bytes(error_reply(ValueError("secret")).body)


@pytest.mark.parametrize(
    ("status", "phrase"),
    [
        (200, "OK"),
        (404, "Not Found"),
        (413, "Request Entity Too Large"),
        (418, "Client Error (418)"),
        (507, "Insufficient Storage"),
        (513, "Server Error (513)"),
        (299, "Success (299)"),
        (999, "Unknown Status (999)"),
        (42, "Unknown Status (42)"),
    ],
)
def test_standard_phrase(status: int, phrase: str) -> None:
    assert standard_phrase(status) == phrase


def test_prediction_keeps_what_the_handler_set() -> None:
    reply = prediction_reply(Prediction("id", b"x", 201, "Made", {"X-One": "1"}))
    assert reply == Reply(201, b"x", [(b"X-One", b"1")], "Made")


def test_handler_cannot_replace_protected_headers() -> None:
    names = ["X-Request-Id", "Content-Length", "Connection", "PRAGMA", "Transfer-Encoding"]
    assert not prediction_reply(Prediction("id", b"", headers=dict.fromkeys(names, "1"))).headers


@pytest.mark.parametrize(
    ("name", "value"),
    [("X", "a\r\nSet-Cookie: b"), ("X", "a\nb"), ("X\n", "a"), ("", "a"), ("X:", "a")],
)
def test_header_with_a_line_break_ends_as_a_dead_worker(name: str, value: str) -> None:
    with pytest.raises(WorkerFailed, match=r"Worker died\."):
        prediction_reply(Prediction("id", b"", headers={name: value}))


def test_line_break_in_a_reason_is_a_blank() -> None:
    assert prediction_reply(Prediction("id", b"", reason="a\r\nb")).reason == "a  b"


@pytest.mark.parametrize("status", [-1, 100, 101, 199])
def test_status_that_ends_no_exchange_is_a_dead_worker(status: int) -> None:
    with pytest.raises(WorkerFailed):
        prediction_reply(Prediction("id", b"", status=status))


def test_handler_can_replace_cors_headers() -> None:
    cors = Cors(origin="*", methods="GET").as_headers()
    reply = Reply(200, b"", [(b"Access-Control-Allow-Origin", b"mine")])
    headers = with_common_headers(reply, "id", cors)
    assert [v for n, v in headers if n.lower() == b"access-control-allow-origin"] == [b"mine"]
    assert (b"access-control-allow-methods", b"GET") in headers
