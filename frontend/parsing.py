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

from torchkeep.frontend.call import BAD_ESCAPE
from torchkeep.frontend.errors import BadRequest, MalformedForm
from torchkeep.frontend.responses import Header
from torchkeep.runtime.messages import Body, InputParameter, RequestInput

MAX_FIELDS = 10_000  # of one form; messages.MAX_ITEMS is what a worker would refuse
MAX_PART_HEADERS = 100
MAX_PART_HEADER_BYTES = 64 << 10  # a name may be long
UNCHANGED_ENCODINGS = (b"binary", b"8bit", b"7bit")  # of a part; nobody decodes others
_NAME_BYTES = bytes.maketrans(b"\t,:;=", b"     ")
ENCODED_FILE_NAME = re.compile(rb";\s*filename\*\s*=", re.IGNORECASE)
BLANK_LINE = re.compile(rb"\r?\n\r?\n")
IN_NAMES = str.maketrans("\t", " ", "\r\n")  # TorchServe: line ends are nothing
BLANKS = "\t\n\v\f\r\x1c\x1d\x1e\x1f "
LINE_END = re.compile(rb"\r?\n|\r\Z|(?P<lone>\r)")
MAX_SHOWN_BYTES = 200  # of a field, in an error


def read_input(
    request_id: str,
    headers: Sequence[Header],
    body: Body,
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


def read_headers(headers: Sequence[Header], body: Body, added: Mapping[str, str]) -> dict[str, str]:
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


def read_parameters(content_type: str, body: Body) -> list[InputParameter]:
    """One parameter `body`, or the fields of a form; of a repeated name the last one counts."""
    mime_type = content_type.partition(";")[0]  # TorchServe: with the blanks before a semicolon
    if mime_type.lower() == "application/x-www-form-urlencoded":
        return _last_of_each(_urlencoded_fields(bytes(body)))
    if mime_type.startswith("multipart/form-data"):  # TorchServe: not in capitals
        boundary = parse_options_header(content_type)[1].get(b"boundary")
        if boundary == b"":
            raise MalformedForm("Needs a boundary value : multipart/form-data; boundary=...")
        if boundary:
            return _last_of_each(_MultipartForm(boundary).read(bytes(body)))
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
        # TorchServe: the line that a value stands in is all of the form
        end = LINE_END.search(pair, pair.find(b"=")) if b"=" in pair else None
        if end is None:
            fields.append(_urlencoded_field(pair))
            continue
        if end["lone"]:
            raise MalformedForm("Bad end of line")
        fields.append(_urlencoded_field(pair[: end.start()]))
        break
    return fields


def _urlencoded_field(pair: bytes) -> InputParameter:
    raw_name, _, value = pair.partition(b"=")
    if b"%" in raw_name and BAD_ESCAPE.search(raw_name):
        raise MalformedForm(f"Bad string: '{_shown(raw_name)}'")
    name = unquote_plus(raw_name.decode("utf-8", "replace")).strip(BLANKS).translate(IN_NAMES)
    if not name:
        raise MalformedForm("empty name : the fields of a form are written name=value&name=value")
    if b"%" in value and (bad := BAD_ESCAPE.search(value)):
        raise MalformedForm(
            f"Invalid hex byte at index '{bad.start()}' in string: '{_shown(value)}'"
        )
    return InputParameter(name, unquote_to_bytes(value.replace(b"+", b" ")))


def _shown(text: bytes) -> str:
    return text[:MAX_SHOWN_BYTES].decode("utf-8", "replace")


class _MultipartForm:
    """Collects the parts of one multipart body."""

    def __init__(self, boundary: bytes) -> None:
        self._boundary = boundary
        self._fields: list[InputParameter] = []
        self._start_part()

    def read(self, body: bytes) -> list[InputParameter]:
        """The parts. TorchServe: a body that breaks all rules has none, and is no error."""
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
                max_header_count=MAX_PART_HEADERS,
                max_header_size=MAX_PART_HEADER_BYTES,
            )
            parser.write(body)
            parser.finalize()
        except FormParserError:
            self._fields = []
            self._read_leniently(body)
        return self._fields

    def _read_leniently(self, body: bytes) -> None:
        """TorchServe: bare line feeds will do, and a header without a colon is passed over."""
        delimiter = b"--" + self._boundary
        if not body.lstrip(b"\r\n").startswith(delimiter):
            return
        _, *parts = re.split(rb"(?:\A|\r?\n)" + re.escape(delimiter), body)
        for part in parts[:-1]:  # the last one has no end
            blank_line = BLANK_LINE.search(part)
            if part.startswith(b"--") or blank_line is None:
                return
            self._start_part()
            for line in part[: blank_line.start()].split(b"\n"):
                name, colon, value = line.partition(b":")
                if colon:
                    self._headers[name.strip().lower()] = value.strip()
            self._data.append(part[blank_line.end() :])
            self._end_part()

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
        # TorchServe: what separates options is a blank in a name
        name = options.get(b"name", b"").translate(_NAME_BYTES, b'"').strip()
        if not name or kind.lower() != b"form-data":
            raise MalformedForm(
                "A part of the form has no name : each begins with the header "
                'Content-Disposition: form-data; name="..."'
            )
        # TorchServe: without a file name even a declared content type is not one
        is_file = b"filename" in options or ENCODED_FILE_NAME.search(disposition) is not None
        self._check_charset()
        content_type = self._content_type_of_file() if is_file else ""
        self._fields.append(
            InputParameter(name.decode("utf-8", "replace"), b"".join(self._data), content_type)
        )

    def _check_charset(self) -> None:
        declared = self._headers.get(b"content-type", b"")
        charset = parse_options_header(declared)[1].get(b"charset", b"utf-8").decode("latin-1")
        try:
            codecs.lookup(charset)
        except (LookupError, ValueError) as error:
            raise MalformedForm(f"The charset of a part is unknown: {charset}") from error

    def _content_type_of_file(self) -> str:
        encoding = self._headers.get(b"content-transfer-encoding")
        if encoding is not None and encoding.lower() not in UNCHANGED_ENCODINGS:
            raise MalformedForm(f"TransferEncoding Unknown: {_shown(encoding)}")
        declared = self._headers.get(b"content-type", b"application/octet-stream")
        return declared.partition(b";")[0].strip().decode("latin-1")


def _last_of_each(fields: list[InputParameter]) -> list[InputParameter]:
    return list({field.name: field for field in fields}.values())


def _too_many_fields() -> BadRequest:
    return BadRequest(f"A form may have {MAX_FIELDS} fields.")
