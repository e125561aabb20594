"""What a handler sees of an HTTP request, as in TorchServe."""

import contextlib
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from torchkeep.frontend.errors import BadRequest, MalformedForm
from torchkeep.frontend.parsing import MAX_FIELDS, read_headers, read_input, read_parameters
from torchkeep.runtime.messages import InputParameter

FORM = "application/x-www-form-urlencoded"
MULTIPART = "multipart/form-data; boundary=B"


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
        (b"a%zz", {}),
        (b"a=1&b=2\n", {"a": b"1", "b": b"2"}),
        (b"a=1\r\n", {"a": b"1"}),
        (b"a=1\r", {"a": b"1"}),
        (b"a\tb=1", {"a b": b"1"}),
        (b"a\r\nb=1", {"ab": b"1"}),
        (b"a=\nb=2&c=3", {"a": b""}),
        (b"\na=1", {"a": b"1"}),
        (b"a=1%0A", {"a": b"1\n"}),
        (b"+a%20b%0A=1", {"a b": b"1"}),
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


@pytest.mark.parametrize("name", ["filename*=UTF-8''f%20g.txt", "filename*=utf-8''%C3%BC"])
def test_part_with_an_encoded_file_name_is_a_file(name: str) -> None:
    """As older releases of requests send names that are not ASCII."""
    disposition = f'form-data; name="data"; {name}'
    body = (part(disposition, "text", "Content-Type: text/plain") + "--B--\r\n").encode()
    assert read_parameters(MULTIPART, body) == [InputParameter("data", b"text", "text/plain")]


@pytest.mark.parametrize(
    ("name", "seen"), [("a:b,c=d;e", "a b c d e"), (" a ", "a"), ('a"b', "ab"), ("a==b", "a  b")]
)
def test_names_of_parts_are_cleaned(name: str, seen: str) -> None:
    body = (part(f'form-data; name="{name}"', "1") + "--B--").encode()
    assert read_parameters(MULTIPART, body) == [InputParameter(seen, b"1", "")]


@pytest.mark.parametrize("encoding", ["base64", "quoted-printable", ""])
def test_file_that_would_have_to_be_decoded(encoding: str) -> None:
    header = f"Content-Transfer-Encoding: {encoding}"
    body = (part('form-data; name="a"; filename="f"', "1", header) + "--B--").encode()
    with pytest.raises(MalformedForm, match=f"TransferEncoding Unknown: {encoding}"):
        read_parameters(MULTIPART, body)
    body = (part('form-data; name="a"', "1", header) + "--B--").encode()
    assert read_parameters(MULTIPART, body) == [InputParameter("a", b"1", "")]


@pytest.mark.parametrize("start", ["", "\n", "\r\n"])
def test_lines_of_a_multipart_body_may_end_in_bare_line_feeds(start: str) -> None:
    parts = part('form-data; name="a"', "1\r\n2") + part('form-data; name="b"; filename="f"', "")
    body = start + parts.replace("\r\n", "\n").replace("1\n2", "1\r\n2") + "--B--\n--B\n\n\n--B"
    assert read_parameters(MULTIPART, body.encode()) == [
        InputParameter("a", b"1\r\n2", ""),
        InputParameter("b", b"", "application/octet-stream"),
    ]


def test_header_without_a_colon_is_passed_over() -> None:
    body = (part('form-data; name="a"', "1", "no colon") + "--B--").encode()
    assert read_parameters(MULTIPART, body) == [InputParameter("a", b"1", "")]


def test_last_of_two_parts_with_one_name_wins() -> None:
    disposition = 'form-data; name="a"'
    body = (part(disposition, "1") + part(disposition, "2") + "--B--\r\n").encode()
    assert read_parameters(MULTIPART, body) == [InputParameter("a", b"2", "")]


@pytest.mark.parametrize("body", [b"garbage", b"--X\r\n\r\n\r\n--X--", b"", b"--B\r\nno header"])
def test_unparsable_multipart_body_gives_no_parameter(body: bytes) -> None:
    assert read_parameters(MULTIPART, body) == []


@pytest.mark.parametrize(
    "disposition", ["form-data", 'form-data; name=""', 'attachment; name="a"', '; name="a"', ""]
)
def test_part_without_a_name(disposition: str) -> None:
    body = (part(disposition, "1") + "--B--\r\n").encode()
    with pytest.raises(MalformedForm, match="has no name"):
        read_parameters(MULTIPART, body)


@pytest.mark.parametrize("boundary", ["boundary=", 'boundary=""', "boundary"])
def test_a_boundary_of_nothing(boundary: str) -> None:
    with pytest.raises(MalformedForm, match="Needs a boundary value"):
        read_parameters(f"multipart/form-data; {boundary}", b"x")


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"a=%zz", "Invalid hex byte at index '0' in string: '%zz'"),
        (b"a=1&b=x%1gy", "Invalid hex byte at index '1' in string: 'x%1gy'"),
        (b"a=50%", "Invalid hex byte at index '2' in string: '50%'"),
        (b"%zz=1&b=2", "Bad string: '%zz'"),
        (b"a=1\r2&b=3", "Bad end of line"),
        (b"a=" + b"%" * 300, f"Invalid hex byte at index '0' in string: '{'%' * 200}'"),
        *((body, "empty name") for body in (b"=x", b"+=x", b"a=1&&b=2", b"&&", b"&a=1", b"a=1&=2")),
    ],
)
def test_field_that_cannot_be_read(body: bytes, message: str) -> None:
    with pytest.raises(MalformedForm, match=re.escape(message)):
        read_parameters(FORM, body)


def test_part_may_have_a_long_name_and_many_headers() -> None:
    name = "n" * 60_000
    headers = [f"X-{n}: {n}" for n in range(90)]
    body = (part(f'form-data; name="{name}"', "1", *headers) + "--B--\r\n").encode()
    assert read_parameters(MULTIPART, body) == [InputParameter(name, b"1", "")]


def test_part_in_an_unknown_charset_cannot_be_read() -> None:
    header = "Content-Type: text/plain; charset=none"
    body = (part('form-data; name="a"', "1", header) + "--B--\r\n").encode()
    with pytest.raises(MalformedForm, match="unknown: none"):
        read_parameters(MULTIPART, body)


def test_of_several_content_types_the_first_counts() -> None:
    headers = [(b"Content-Type", b"text/plain"), (b"content-type", b"application/json")]
    seen = read_input("id", headers, b"1", {})
    assert seen.parameters == [InputParameter("body", b"1", "text/plain")]
    assert seen.headers["content-type"] == "application/json"


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
    for whole in (body, b"--B\r\n" + body):
        with contextlib.suppress(MalformedForm):
            for parameter in read_parameters(content_type, whole):
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
