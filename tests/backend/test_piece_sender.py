"""`context.cl_socket`: what it sends, and what it raises into the handler instead."""

import os
import threading
from typing import Any

import pytest

from torchkeep.backend.handler_output import ProtocolViolation, UnusableOutput
from torchkeep.backend.piece_sender import PieceSender
from torchkeep.runtime.messages import Chunk, Prediction, RequestInput
from ts.context import RequestProcessor

IDS = {0: "a", 1: "b"}
REQUESTS = [RequestInput("a", {}, []), RequestInput("b", {}, [])]


@pytest.fixture
def sent() -> list[Chunk]:
    return []


@pytest.fixture
def processors() -> list[RequestProcessor]:
    return [RequestProcessor({}), RequestProcessor({})]


@pytest.fixture
def sender(sent: list[Chunk], processors: list[RequestProcessor]) -> PieceSender:
    made = PieceSender()
    made.connect(sent.append)
    made.begin(REQUESTS, processors)
    return made


def test_one_piece_for_each_request(sender: PieceSender, sent: list[Chunk]) -> None:
    sender.send_pieces(["one", {"two": 2}], IDS, "more", 200)
    assert sent == [
        Chunk(200, "more", [Prediction("a", b"one"), Prediction("b", b'{\n  "two": 2\n}')])
    ]


def test_pieces_carry_what_the_handler_set_so_far(
    sender: PieceSender, sent: list[Chunk], processors: list[RequestProcessor]
) -> None:
    processors[1].report_status(201, "Odd")
    processors[1].add_response_property("X-Own", "v")
    sender.send_pieces(["one", "two"], IDS, "more", 200)
    assert sent[0].items[1] == Prediction("b", b"two", 201, "Odd", {"X-Own": "v"})


@pytest.mark.parametrize(
    ("pieces", "request_ids", "bodies"),
    [
        (["one", "two"], {1: "b"}, {"b": b"two"}),
        (["one", "two", "beyond"], IDS, {"a": b"one", "b": b"two"}),
        ({0: "one", 1: "two"}, IDS, {"a": b"one", "b": b"two"}),
        ("text", IDS, {"a": b"t", "b": b"e"}),
    ],
)
def test_pieces_are_found_by_index_as_in_torchserve(
    sender: PieceSender,
    sent: list[Chunk],
    pieces: Any,
    request_ids: dict[int, str],
    bodies: dict[str, bytes],
) -> None:
    sender.send_pieces(pieces, request_ids, "more", 200)
    assert {item.request_id: item.body for item in sent[0].items} == bodies


def test_no_request_means_no_message(sender: PieceSender, sent: list[Chunk]) -> None:
    sender.send_pieces([], {}, "more", 200)
    assert not sent


def test_a_code_travels_with_its_message(sender: PieceSender, sent: list[Chunk]) -> None:
    sender.send_pieces(["x", "y"], IDS, "said by the handler", 418)
    assert (sent[0].status, sent[0].message) == (418, "said by the handler")


@pytest.mark.parametrize(
    ("pieces", "request_ids", "message", "code", "error"),
    [
        (["one"], IDS, "more", 200, IndexError),
        (["one", object()], IDS, "more", 200, UnusableOutput),
        (["one"], {0: "unknown"}, "more", 200, ValueError),
        (["one"], {0: "a"}, 7, 200, ProtocolViolation),
        (["one"], {0: "a"}, "more", "200", ProtocolViolation),
        (["one"], {0: "a"}, "more", 1 << 31, ProtocolViolation),
    ],
)
def test_what_cannot_be_sent_is_raised_and_nothing_sent(
    sender: PieceSender,
    sent: list[Chunk],
    pieces: Any,
    request_ids: dict[int, str],
    message: Any,
    code: Any,
    error: type[Exception],
) -> None:
    with pytest.raises(error):
        sender.send_pieces(pieces, request_ids, message, code)
    assert not sent


def test_a_header_that_no_reply_can_carry_is_raised(
    sender: PieceSender, sent: list[Chunk], processors: list[RequestProcessor]
) -> None:
    processors[0].add_response_property("x-lines", "a\r\nx-injected: b")
    with pytest.raises(ProtocolViolation):
        sender.send_pieces(["one", "two"], IDS, "more", 200)
    assert not sent


def test_a_thread_that_sends_after_the_batch_is_refused(
    sender: PieceSender, sent: list[Chunk]
) -> None:
    errors: list[Exception] = []

    def send() -> None:
        try:
            sender.send_pieces(["one", "two"], IDS, "more", 200)
        except ValueError as error:
            errors.append(error)

    for _ in range(2):
        thread = threading.Thread(target=send)
        thread.start()
        thread.join()
        sender.end()
    assert len(sent) == len(errors) == 1


def test_a_fork_may_not_send(sender: PieceSender, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "getpid", lambda: -1)
    with pytest.raises(RuntimeError, match="no fork"):
        sender.send_pieces(["one", "two"], IDS, "more", 200)


def test_without_a_connection_pieces_are_checked_and_go_nowhere(
    processors: list[RequestProcessor],
) -> None:
    sender = PieceSender()
    sender.begin(REQUESTS, processors)
    sender.send_pieces(["one", "two"], IDS, "more", 200)
    with pytest.raises(UnusableOutput):
        sender.send_pieces([object()], {0: "a"}, "more", 200)
