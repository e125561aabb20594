"""TorchServe's rules for turning an HTTP request into what a handler sees.

A body is opaque, and reaches the worker as it came, unless its content type says form.
"""

import codecs
import re
from collections.abc import Mapping, Sequence
from urllib.parse import unquote_plus, unquote_to_bytes

from python_multipart import MultipartParser
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import parse_options_header

from torchkeep.frontend.errors import BadRequest, FormError
from torchkeep.frontend.responses import Header
from torchkeep.runtime.messages import InputParameter, RequestInput

MAX_FIELDS = 10_000  # of one form; messages.MAX_ITEMS is what a worker would refuse
BAD_ESCAPE = re.compile(rb"%(?![0-9a-fA-F]{2})")
LINE = re.compile(rb"[^\r\n]*")
# TorchServe: in a name line ends are nothing and a tab is a blank;
LINE_ENDS = str.maketrans("\t", " ", "\r\n")
# in one of a part what could end it is a blank too, and quotes are nothing.
PART_NAME = str.maketrans(dict.fromkeys(":,;=\t", " ") | {'"': None})
PLAIN_ENCODINGS = frozenset([b"7bit", b"8bit", b"binary"])


def read_input(
    request_id: str,
    headers: Sequence[Header],
    body: bytes,
    added: Mapping[str, str],
    query: Sequence[tuple[str, str]] = (),
) -> RequestInput:
    """The request as the handler sees it; `added` are the headers TorchServe adds itself."""
    parameters = read_parameters(_content_type(headers), body)
    if query:
        # TorchServe: the body counts where it gives the same name
        asked = [InputParameter(name, value.encode("utf-8", "replace")) for name, value in query]
        parameters = _last_of_each([*asked, *parameters])
    return RequestInput(request_id, read_headers(headers, body, added), parameters)


def _content_type(headers: Sequence[Header]) -> str:
    """TorchServe: of several the first counts, though the handler sees the last."""
    for name, value in headers:
        if name.lower() == b"content-type":
            return value.decode("latin-1").strip()
    return ""


def read_headers(
    headers: Sequence[Header], body: bytes, added: Mapping[str, str]
) -> dict[str, str]:
    """Headers as the client spelled them. The body is whole, so it has a length by now."""
    seen = {}
    is_length_given = False
    for name, value in headers:
        lower = name.lower()
        is_length_given |= lower == b"content-length"
        if lower != b"transfer-encoding":
            seen[name.decode("latin-1")] = value.decode("latin-1")
    if not is_length_given:
        seen["content-length"] = str(len(body))
    seen.update(added)
    return seen


def read_parameters(content_type: str, body: bytes) -> list[InputParameter]:
    """One parameter `body`, or the fields of a form; of a repeated name the last one counts.

    Raises FormError for a form that cannot be read, BadRequest for one of very many fields.
    """
    mime_type = content_type.partition(";")[0]  # TorchServe: with the blanks before a semicolon
    if mime_type.lower() == "application/x-www-form-urlencoded":
        return _last_of_each(_urlencoded_fields(body))
    if mime_type.startswith("multipart/form-data"):  # TorchServe: not in capitals
        boundary = parse_options_header(content_type)[1].get(b"boundary")
        if boundary:
            return _last_of_each(_MultipartForm(boundary).read(body))
    return [InputParameter("body", body, mime_type)]


def _urlencoded_fields(body: bytes) -> list[InputParameter]:
    if body.count(b"&") >= MAX_FIELDS:
        raise _too_many_fields()
    pairs = body.split(b"&")
    if b"=" not in pairs[-1]:
        # TorchServe: a last field without `=` is none, so curl -d '{"a":1}' gives no field
        pairs.pop()
    fields = []
    for pair in pairs:
        name, _, value = pair.partition(b"=")
        line = LINE.match(value)
        assert line is not None, "it may be empty"
        fields.append(InputParameter(_field_name(name), _field_value(line[0])))
        if line[0] != value:
            break  # TorchServe: the form ends with the line
    return fields


def _field_name(name: bytes) -> str:
    if BAD_ESCAPE.search(name):
        raise FormError(f"Bad string: '{name.decode('latin-1')}'")
    return _named(unquote_plus(name.decode("utf-8", "replace")).translate(LINE_ENDS))


def _field_value(value: bytes) -> bytes:
    if bad := BAD_ESCAPE.search(value):
        text = value.decode("latin-1")
        raise FormError(f"Invalid hex byte at index '{bad.start()}' in string: '{text}'")
    return unquote_to_bytes(value.replace(b"+", b" "))


def _named(name: str) -> str:
    """TorchServe: without the blanks around it, and no field without a name."""
    if not name.strip():
        raise FormError("A field of the form has no name: give it one.")
    return name.strip()


class _MultipartForm:
    """Collects the parts of one multipart body."""

    def __init__(self, boundary: bytes) -> None:
        self._boundary = boundary
        self._fields: list[InputParameter] = []
        self._start_part()

    def read(self, body: bytes) -> list[InputParameter]:
        """The parts. TorchServe: a body that breaks the rules has none, and is no error."""
        try:
            parser = MultipartParser(
                self._boundary,
                {
                    "on_part_begin": self._start_part,
                    "on_part_data": self._add_data,
                    "on_part_end": self._end_part,
                    "on_header_field": self._add_header_name,
                    "on_header_value": self._add_header_value,
                    "on_header_end": self._end_header,
                },
            )
            parser.write(body)
            parser.finalize()
        except FormParserError:
            return []
        return self._fields

    def _start_part(self) -> None:
        self._headers: dict[bytes, bytes] = {}
        self._header_name = b""
        self._header_value = b""
        self._data: list[bytes] = []

    def _add_header_name(self, data: bytes, start: int, end: int) -> None:
        self._header_name += data[start:end]

    def _add_header_value(self, data: bytes, start: int, end: int) -> None:
        self._header_value += data[start:end]

    def _end_header(self) -> None:
        self._headers[self._header_name.lower()] = self._header_value
        self._header_name = self._header_value = b""

    def _add_data(self, data: bytes, start: int, end: int) -> None:
        self._data.append(data[start:end])

    def _end_part(self) -> None:
        if len(self._fields) >= MAX_FIELDS:
            raise _too_many_fields()
        disposition = self._headers.get(b"content-disposition", b"")
        kind, options = parse_options_header(disposition)
        if kind != b"form-data" or b"name" not in options:
            raise FormError(
                "A part of the form has no name: its head needs a line "
                'Content-Disposition: form-data; name="...".'
            )
        name = _named(options[b"name"].decode("utf-8", "replace").translate(PART_NAME))
        # TorchServe: without a file name even a declared content type is not one
        is_file = b"filename" in options or b"filename*=" in disposition.lower()
        declared = self._headers.get(b"content-type", b"application/octet-stream")
        self._check_charset(declared)
        content_type = ""
        if is_file:
            self._check_encoding()
            content_type = declared.decode("latin-1").partition(";")[0].strip()
        self._fields.append(InputParameter(name, b"".join(self._data), content_type))

    def _check_charset(self, content_type: bytes) -> None:
        charset = parse_options_header(content_type)[1].get(b"charset", b"utf-8").decode("latin-1")
        try:
            codecs.lookup(charset)
        except (LookupError, ValueError) as error:
            raise FormError(f"The charset of a part is unknown: {charset}") from error

    def _check_encoding(self) -> None:
        encoding = self._headers.get(b"content-transfer-encoding", b"binary").lower()
        if encoding not in PLAIN_ENCODINGS:
            raise FormError(f"TransferEncoding Unknown: {encoding.decode('latin-1')}")


def _last_of_each(fields: list[InputParameter]) -> list[InputParameter]:
    return list({field.name: field for field in fields}.values())


def _too_many_fields() -> BadRequest:
    return BadRequest(f"A form may have {MAX_FIELDS} fields.")
