"""The function that handlers stream with, in its new home and in its old one."""

import warnings
from collections import OrderedDict
from typing import Any

import pytest

from torchkeep.backend.piece_sender import PieceSender
from torchkeep.runtime.messages import Chunk, Prediction, RequestInput
from ts.context import Context, RequestProcessor
from ts.handler_utils.utils import import_class, send_intermediate_predict_response
from ts.protocol import otf_message_handler


@pytest.fixture
def sent() -> list[Chunk]:
    return []


@pytest.fixture
def context(sent: list[Chunk]) -> Context:
    made = Context("m", "/", None, 1, None, "0")
    made.request_ids = {0: "r"}
    made.cl_socket = PieceSender()
    made.cl_socket.connect(sent.append)
    made.cl_socket.begin([RequestInput("r", {}, [])], [RequestProcessor({})])
    return made


@pytest.mark.parametrize(("rank", "is_sent"), [(None, 1), ("", 1), ("0", 1), ("1", 0), ("7", 0)])
def test_only_rank_0_sends(
    context: Context,
    sent: list[Chunk],
    monkeypatch: pytest.MonkeyPatch,
    rank: str | None,
    is_sent: int,
) -> None:
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    if rank is not None:
        monkeypatch.setenv("LOCAL_RANK", rank)
    send: Any = send_intermediate_predict_response
    assert send(["one"], context.request_ids, "more", 200, context) is None
    assert sent == [Chunk(200, "more", [Prediction("r", b"one")])] * is_sent


def test_without_the_context_nothing_can_be_sent(context: Context) -> None:
    with pytest.raises(TypeError):
        send_intermediate_predict_response(["one"], context.request_ids, "more", 200)  # type: ignore[call-arg]


def test_the_old_home_works_and_says_where_to_go(context: Context, sent: list[Chunk]) -> None:
    with pytest.warns(DeprecationWarning, match=r"from ts\.handler_utils\.utils"):
        otf_message_handler.send_intermediate_predict_response(
            ["one"], context.request_ids, "more", 200, context
        )
    with warnings.catch_warnings(action="error"):
        send_intermediate_predict_response(["two"], context.request_ids, "more", 200, context)
    assert [chunk.items[0].body for chunk in sent] == [b"one", b"two"]


def test_classes_by_name() -> None:
    assert import_class("collections.OrderedDict") is OrderedDict
    assert import_class("OrderedDict", "collections") is OrderedDict


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("", "class name is not defined"),
        ("OrderedDict", "module name is not defined"),
        ("collections.Nope", "class:Nope not found in module:collections"),
        ("no_such.Thing", "no_such"),
    ],
)
def test_classes_that_are_not_there(name: str, text: str) -> None:
    with pytest.raises(ImportError, match=text):
        import_class(name)
