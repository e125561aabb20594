"""What a route may ask about a request."""

import asyncio
from typing import Any

import pytest

from torchkeep.frontend.call import MAX_QUERY_FIELDS, Call, ClientGone
from torchkeep.frontend.errors import BadEscape, BadRequest
from torchkeep.frontend.exchange import EXCHANGE
from torchkeep.frontend.jobs import Job
from torchkeep.runtime.messages import RequestInput


class FakeExchange:
    def __init__(self, disconnected: bool = False) -> None:
        self.disconnected = disconnected
        self.on_disconnect: Any = None


def call_with(messages: list[dict[str, Any]] | None = None, **scope: Any) -> Call:
    waiting = list(messages or [])

    async def receive() -> dict[str, Any]:
        return waiting.pop(0)

    path = scope.get("path", "/")
    defaults = {"method": "GET", "path": path, "query_string": b"", "headers": []}
    return Call({**defaults, "raw_path": path.encode(), **scope}, receive)


@pytest.mark.parametrize(
    ("path", "segments"),
    [
        ("/", []),
        ("//", []),
        ("/a", ["a"]),
        ("/a/b//", ["a", "b"]),
        ("//a", ["", "a"]),
        ("/a//b", ["a", "", "b"]),
        ("*", []),
        ("host:443", []),
    ],
)
def test_segments(path: str, segments: list[str]) -> None:
    assert call_with(path=path).segments == segments


def test_first_of_repeated_query_parameters_counts() -> None:
    call = call_with(query_string=b"a=1&a=2&b=&c")
    assert call.query == {"a": "1", "b": "", "c": ""}
    assert call.query_values("a") == ["1", "2"]


@pytest.mark.parametrize(
    ("query", "fields"),
    [
        ("", []),
        ("a", [("a", "")]),
        ("a=1;b=2&&c", [("a", "1"), ("b", "2"), ("c", "")]),
        ("=1&==a=b=c", [("1", ""), ("a", "b=c")]),
        ("a+b=%C3%A4+%2B", [("a b", "ä +")]),
        ("a=%FF", [("a", "\N{REPLACEMENT CHARACTER}")]),
        ("a=1#b=%ZZ", [("a", "1")]),
    ],
)
def test_query_is_split_as_torchserve_does(query: str, fields: list[tuple[str, str]]) -> None:
    assert call_with(query_string=query.encode()).query_fields == fields


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("a=%ZZ", "invalid hex byte 'ZZ' at index 11 of '/m/path?a=%ZZ'"),
        ("a=1&%1", "unterminated escape sequence at index 12 of: /m/path?a=1&%1"),
        ("a=%4&b", "unterminated escape sequence at index 10 of: /m/path?a=%4&b"),
    ],
)
def test_a_bad_escape_in_the_query_is_refused_by_name(query: str, message: str) -> None:
    with pytest.raises(BadEscape) as error:
        call_with(path="/m/path", query_string=query.encode()).query  # noqa: B018
    assert str(error.value) == message


def test_very_many_query_parameters_are_refused() -> None:
    most = b"&".join([b"a"] * MAX_QUERY_FIELDS)
    assert len(call_with(query_string=most).query_fields) == MAX_QUERY_FIELDS
    with pytest.raises(BadRequest, match="Too many query parameters"):
        call_with(query_string=most + b"&a").query_fields  # noqa: B018


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("7", 7),
        ("+7", 7),
        ("-7", -7),
        ("2147483647", 2**31 - 1),
        ("2147483648", None),
        ("-2147483648", -(2**31)),
        (" 7", None),
        ("7.0", None),
    ],
)
def test_integers_are_those_of_java(text: str, number: int | None) -> None:
    call = call_with(query_string=f"a={text.replace('+', '%2B')}".encode())
    assert call.query_optional_integer("a") == number
    assert call.query_integer("a", 5) == (5 if number is None else number)


def test_header_of_an_ordinary_server() -> None:
    call = call_with(headers=[(b"content-type", b"a/b"), (b"content-type", b"c/d")])
    assert call.header(b"content-type") == "a/b"
    assert call.header(b"accept") == ""
    assert call.spelled_headers == [(b"content-type", b"a/b"), (b"content-type", b"c/d")]


def test_body_may_come_in_pieces() -> None:
    pieces = [
        {"type": "http.request", "body": b"a", "more_body": True},
        {"type": "http.request", "body": b"b", "more_body": False},
    ]
    assert asyncio.run(call_with(pieces).body()) == b"ab"


@pytest.mark.parametrize("before", [[], [{"type": "http.request", "more_body": True}]])
def test_client_that_leaves_before_its_body_came(before: list[dict[str, Any]]) -> None:
    with pytest.raises(ClientGone):
        asyncio.run(call_with([*before, {"type": "http.disconnect"}]).body())


def test_job_of_a_client_that_is_already_gone_is_cancelled() -> None:
    async def main() -> None:
        job = Job(RequestInput("id", {}, []), "default")
        with call_with(extensions={EXCHANGE: FakeExchange(True)}).abandons(job):
            pytest.fail("nobody waits for this")

    with pytest.raises(ClientGone):
        asyncio.run(main())


@pytest.mark.parametrize("extensions", [{}, {EXCHANGE: FakeExchange()}])
def test_end_of_the_server_is_not_the_client_leaving(extensions: dict[str, Any]) -> None:
    async def main() -> None:
        job = Job(RequestInput("id", {}, []), "default")

        async def wait() -> None:
            with call_with(extensions=extensions).abandons(job):
                await job.reply()

        task = asyncio.ensure_future(wait())
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert job.is_over

    asyncio.run(main())
