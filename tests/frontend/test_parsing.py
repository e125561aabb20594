"""What a handler sees of an HTTP request: contract/inference_api.md §4 as tests."""

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from torchkeep.frontend.errors import BadRequest, FormError
from torchkeep.frontend.parsing import MAX_FIELDS, read_headers, read_input, read_parameters
from torchkeep.runtime.messages import InputParameter

FORM = "application/x-www-form-urlencoded"
MULTIPART = "multipart/form-data; boundary=B"
FILE = 'form-data; name="a"; filename="f"'


def part(disposition: str, content: str, *headers: str) -> str:
    head = "".join(f"{line}\r\n" for line in (f"Content-Disposition: {disposition}", *headers))
    return f"--B\r\n{head}\r\n{content}\r\n"


@pytest.mark.parametrize(
    ("content_type", "seen"),
    [
        ("", ""),
        ("application/json", "application/json"),
        ("application/json; charset=utf-8", "application/json"),
        ("Application/JSON", "Application/JSON"),
        ("text/plain ; charset=latin1", "text/plain "),
        ("application/x-www-form-urlencoded ; charset=utf-8", "application/x-www-form-urlencoded "),
        ("Multipart/Form-Data; boundary=B", "Multipart/Form-Data"),
        ("multipart/mixed; boundary=B", "multipart/mixed"),
        ("multipart/form-data", "multipart/form-data"),
    ],
)
def test_body_that_is_no_form_is_opaque(content_type: str, seen: str) -> None:
    body = b"a=1&b=2"
    assert read_parameters(content_type, body) == [InputParameter("body", body, seen)]


@pytest.mark.parametrize(
    ("body", "fields"),
    [
        (b"a=1&b=two", {"a": b"1", "b": b"two"}),
        (b"a=1+2%203", {"a": b"1 2 3"}),
        (b"a=%ff%00", {"a": b"\xff\x00"}),
        (b"%C3%BC+x=1", {"ü x": b"1"}),
        (b"a=1&a=2", {"a": b"2"}),
        (b"a=", {"a": b""}),
        (b"a=1=2", {"a": b"1=2"}),
        (b"a=1&", {"a": b"1"}),
        (b" a\n =1", {"a": b"1"}),
        (b"a\tb=1", {"a b": b"1"}),
        (b"a=1\r\n", {"a": b"1"}),
        (b"a=\nx&b=2", {"a": b""}),
        (b"a&b=1", {"a": b"", "b": b"1"}),
        (b'{"a":1}', {}),
        (b"", {}),
    ],
)
def test_urlencoded_form(body: bytes, fields: dict[str, bytes]) -> None:
    parameters = read_parameters(FORM.upper(), body)
    assert {p.name: p.value for p in parameters} == fields
    assert {p.content_type for p in parameters} <= {""}


def test_part_with_a_file_name_keeps_its_type() -> None:
    body = (
        part('form-data; name="data"; filename="f.png"', "PNG", "Content-Type: image/png; q=1")
        + part('form-data; name="raw"; filename="f"', "RAW")
        + part('form-data; name="plain"', "text", "Content-Type: text/plain")
        + "--B--\r\n"
    ).encode()
    assert read_parameters(MULTIPART, body) == [
        InputParameter("data", b"PNG", "image/png"),
        InputParameter("raw", b"RAW", "application/octet-stream"),
        InputParameter("plain", b"text", ""),
    ]


def test_last_of_two_parts_with_one_name_wins() -> None:
    disposition = 'form-data; name="a"'
    body = (part(disposition, "1") + part(disposition, "2") + "--B--\r\n").encode()
    assert read_parameters(MULTIPART, body) == [InputParameter("a", b"2", "")]


@pytest.mark.parametrize("body", [b"garbage", b"--X\r\n\r\n\r\n--X--", b"", b"--B\r\nno header"])
def test_unparsable_multipart_body_gives_no_parameter(body: bytes) -> None:
    assert read_parameters(MULTIPART, body) == []


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"a=xx%ZZ", "Invalid hex byte at index '2' in string: 'xx%ZZ'"),
        (b"a=%", "Invalid hex byte at index '0' in string: '%'"),
        (b"%4x=1", "Bad string: '%4x'"),
        (b"&a=1", "A field of the form has no name: give it one."),
        (b"a=1&&b=2", "A field of the form has no name: give it one."),
        (b"=1", "A field of the form has no name: give it one."),
        (b"%20=1", "A field of the form has no name: give it one."),
    ],
)
def test_a_form_that_cannot_be_read_is_an_error(body: bytes, message: str) -> None:
    with pytest.raises(FormError) as raised:
        read_parameters(FORM, body)
    assert str(raised.value) == message


@pytest.mark.parametrize(
    ("disposition", "headers", "message"),
    [
        ("form-data", (), "has no name"),
        ('attachment; name="a"', (), "has no name"),
        ('form-data; name=""', (), "has no name"),
        ('form-data; name=" "', (), "has no name"),
        (FILE, ("Content-Transfer-Encoding: base64",), "TransferEncoding Unknown: base64"),
        ('form-data; name="a"', ("Content-Type: text/plain; charset=none",), "unknown: none"),
    ],
)
def test_a_part_that_cannot_be_read_is_an_error(
    disposition: str, headers: tuple[str, ...], message: str
) -> None:
    body = (part(disposition, "1", *headers) + "--B--\r\n").encode()
    with pytest.raises(FormError, match=message):
        read_parameters(MULTIPART, body)


@pytest.mark.parametrize(
    ("disposition", "header", "name", "content_type"),
    [
        ('form-data; name=" a=b;c\t"', "X: y", "a b c", ""),
        ("form-data; name=\"a\"; filename*=UTF-8''f.txt", "X: y", "a", "application/octet-stream"),
        (FILE, "Content-Type:", "a", ""),
        (FILE, "Content-Type: Text/Plain ; x=y", "a", "Text/Plain"),
        (FILE, "Content-Transfer-Encoding: BINARY", "a", "application/octet-stream"),
        ('form-data; name="a"', "Content-Transfer-Encoding: base64", "a", ""),
    ],
)
def test_head_of_a_part(disposition: str, header: str, name: str, content_type: str) -> None:
    body = (part(disposition, "1", header) + "--B--\r\n").encode()
    assert read_parameters(MULTIPART, body) == [InputParameter(name, b"1", content_type)]


def test_of_several_content_types_the_first_counts() -> None:
    headers = [(b"Content-Type", b"text/plain"), (b"content-type", b"application/json")]
    seen = read_input("id", headers, b"1", {})
    assert seen.parameters == [InputParameter("body", b"1", "text/plain")]


def test_binary_part_arrives_unchanged() -> None:
    content = bytes(range(256)) * 700
    head = b'--B\r\nContent-Disposition: form-data; name="data"; filename="f"\r\n\r\n'
    parameters = read_parameters(MULTIPART, head + content + b"\r\n--B--\r\n")
    assert parameters[0].value == content


def test_a_form_may_not_have_endless_fields() -> None:
    assert len(read_parameters(FORM, b"&".join(b"%d=" % n for n in range(MAX_FIELDS)))) == 10_000
    with pytest.raises(BadRequest):
        read_parameters(FORM, b"&".join(b"%d=" % n for n in range(MAX_FIELDS + 1)))


def test_headers_arrive_as_spelled() -> None:
    headers = [(b"X-One", b"1"), (b"x-one", b"2"), (b"X-One", b"3"), (b"Content-Length", b"0")]
    assert read_headers(headers, b"", {}) == {"X-One": "3", "x-one": "2", "Content-Length": "0"}


def test_request_without_body_gets_a_length() -> None:
    assert read_headers([], b"", {}) == {"content-length": "0"}


def test_a_chunked_request_gets_the_length_of_its_body() -> None:
    headers = [(b"Transfer-Encoding", b"chunked")]
    assert read_headers(headers, b"abc", {}) == {"content-length": "3"}


def test_headers_of_the_server_win() -> None:
    request_input = read_input("id", [(b"explain", b"x")], b"", {"explain": "False"})
    assert request_input.headers["explain"] == "False"
    assert request_input.request_id == "id"


@given(st.binary(max_size=300), st.sampled_from([FORM, MULTIPART, "text/plain"]))
def test_no_body_breaks_the_parser(body: bytes, content_type: str) -> None:
    for some in (body, b"--B\r\n" + body):
        with contextlib.suppress(FormError):
            for parameter in read_parameters(content_type, some):
                parameter.name.encode()


def test_query_parameters_come_before_those_of_the_body() -> None:
    headers = [(b"content-type", FORM.encode())]
    query = [("a", "1"), ("b", "ä"), ("a", "2"), ("c", "query")]
    seen = read_input("id", headers, b"c=field", {}, query).parameters
    assert seen == [
        InputParameter("a", b"2"),
        InputParameter("b", "ä".encode()),
        InputParameter("c", b"field"),
    ]
