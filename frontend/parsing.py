"""TorchServe's rules for turning an HTTP request into what a handler sees.

A body is opaque, and reaches the worker as it came, unless its content type says form.
"""

from collections.abc import Mapping, Sequence
from urllib.parse import unquote_plus, unquote_to_bytes

from python_multipart import MultipartParser
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import parse_options_header

from torchkeep.frontend.errors import BadRequest
from torchkeep.frontend.responses import Header
from torchkeep.runtime.messages import Body, InputParameter, RequestInput

MAX_FIELDS = 10_000  # of one form; messages.MAX_ITEMS is what a worker would refuse


def read_input(
    request_id: str,
    headers: Sequence[Header],
    body: Body,
    added: Mapping[str, str],
    query: Sequence[tuple[str, str]] = (),
) -> RequestInput:
    """The request as the handler sees it; `added` are the headers TorchServe adds itself."""
    content_type = b""
    for name, value in headers:
        if name.lower() == b"content-type":
            content_type = value
    parameters = read_parameters(content_type.decode("latin-1"), body)
    if query:
        # TorchServe: the body counts where it gives the same name
        asked = [InputParameter(name, value.encode("utf-8", "replace")) for name, value in query]
        parameters = _last_of_each([*asked, *parameters])
    return RequestInput(request_id, read_headers(headers, body, added), parameters)


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
    mime_type = content_type.partition(";")[0].strip()
    match mime_type.lower():
        case "application/x-www-form-urlencoded":
            return _last_of_each(_urlencoded_fields(bytes(body)))
        case "multipart/form-data":
            boundary = parse_options_header(content_type)[1].get(b"boundary")
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
        if pair:
            name, _, value = pair.partition(b"=")
            fields.append(
                InputParameter(
                    unquote_plus(name.decode("utf-8", "replace")),
                    unquote_to_bytes(value.replace(b"+", b" ")),
                )
            )
    return fields


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
        _, options = parse_options_header(self._headers.get(b"content-disposition"))
        name = options.get(b"name")
        if name is None:
            raise FormParserError("a part without a name")
        content_type = ""
        if b"filename" in options:
            # TorchServe: without a file name even a declared content type is not one
            declared = self._headers.get(b"content-type", b"").partition(b";")[0].strip()
            content_type = declared.decode("latin-1") or "application/octet-stream"
        self._fields.append(
            InputParameter(name.decode("utf-8", "replace"), b"".join(self._data), content_type)
        )


def _last_of_each(fields: list[InputParameter]) -> list[InputParameter]:
    return list({field.name: field for field in fields}.values())


def _too_many_fields() -> BadRequest:
    return BadRequest(f"A form may have {MAX_FIELDS} fields.")
