"""What goes back to a client: TorchServe's JSON, its reason phrases, its common headers."""

import http
import json
import random
import re
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from torchkeep.frontend.errors import WorkerFailed, is_final, is_meant_for_client, status_of
from torchkeep.runtime.messages import Body, Prediction

Header = tuple[bytes, bytes]

JSON_TYPE: Header = (b"content-type", b"application/json")
NO_CACHE: tuple[Header, ...] = (
    (b"Pragma", b"no-cache"),
    (b"Cache-Control", b"no-cache; no-store, must-revalidate, private"),
    (b"Expires", b"Thu, 01 Jan 1970 00:00:00 UTC"),
)
# TorchServe writes these last, so a handler cannot replace them; the framing is ours anyway.
PROTECTED_HEADERS = frozenset(
    [
        b"cache-control",
        b"connection",
        b"content-length",
        b"expires",
        b"pragma",
        b"transfer-encoding",
        b"x-request-id",
    ]
)
# Where Netty, which writes TorchServe's status lines, differs from Python's table.
NETTY_PHRASES = {
    413: "Request Entity Too Large",
    414: "Request-URI Too Long",
    416: "Requested Range Not Satisfiable",
    422: "Unprocessable Entity",
    425: "Unordered Collection",
}
UNKNOWN_TO_NETTY = frozenset([103, 208, 226, 308, 418, 451, 508])
STREAM_MARK: Header = (b"ts_stream_next", b"true")
LINE_BREAKERS = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")
# TorchServe escapes these two, which JSON allows in a text and JavaScript does not.
SCRIPT_LINE_ENDS = str.maketrans({"\u2028": "\\u2028", "\u2029": "\\u2029"})
STATUS_CLASSES = {1: "Informational", 2: "Success", 3: "Redirection", 4: "Client Error"}


def new_request_id() -> str:
    """TorchServe: always the server's own, whatever the client sent as x-request-id.

    A random UUID (RFC 9562, version 4). It tells requests apart and is no secret, so it needs
    no call of the kernel's generator; and spelled out here it takes a quarter of uuid's time.
    """
    digits = f"{random.getrandbits(128):032x}"
    variant = "89ab"[int(digits[16], 16) & 3]
    return f"{digits[:8]}-{digits[8:12]}-4{digits[13:16]}-{variant}{digits[17:20]}-{digits[20:]}"


@dataclass(frozen=True, slots=True)
class Reply:
    """One complete answer. Without a reason the status line carries the standard phrase."""

    status: int
    body: Body
    headers: Sequence[Header] = ()
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class StreamedReply:
    """An answer of which the first piece has come; the others follow until the last.

    `rest` yields each with the claim that it is the last. What it raises means that there
    will be no last one.
    """

    first: Reply
    rest: AsyncGenerator[tuple[Body, bool], None]


@dataclass(frozen=True, slots=True)
class Cors:
    """The three `cors_allowed_*` keys of the configuration; empty ones send no header."""

    origin: str = ""
    methods: str = ""
    headers: str = ""

    def as_headers(self) -> list[Header]:
        """The headers that every response carries, unless the handler set them."""
        named = (("origin", self.origin), ("methods", self.methods), ("headers", self.headers))
        return [
            (b"access-control-allow-" + name.encode(), value.encode("latin-1", "replace"))
            for name, value in named
            if value
        ]


def pretty_json(value: Any) -> bytes:
    """Two spaces, UTF-8, a final newline: byte for byte what TorchServe's own JSON looks like."""
    text = json.dumps(value, indent=2, ensure_ascii=False).translate(SCRIPT_LINE_ENDS)
    return (text + "\n").encode("utf-8", "replace")


def json_reply(value: Any, status: int = 200) -> Reply:
    """An answer that the server itself makes."""
    return Reply(status, pretty_json(value), (JSON_TYPE,))


def status_reply(text: str, status: int = 200) -> Reply:
    """The one-line answer of ping and of the management verbs."""
    return json_reply({"status": text}, status)


def error_reply(error: Exception) -> Reply:
    """Error JSON. The text of an unexpected error stays in the log: it may hold a payload."""
    status, type_name = status_of(error)
    content: dict[str, Any] = {"code": status, "type": type_name}
    message = str(error) if is_meant_for_client(error) else "Internal server error."
    if message:
        content["message"] = message
    return json_reply(content, status)


def prediction_reply(prediction: Prediction) -> Reply:
    """The handler's body, status, phrase and headers, untouched."""
    if not is_final(prediction.status):
        raise WorkerFailed(500, "Worker died.")
    headers: list[Header] = []
    for name, value in prediction.headers.items():
        header = (name.encode("latin-1", "replace"), value.encode("latin-1", "replace"))
        if not is_header(*header):
            # TorchServe: a header that would break the response ends as a dead worker
            raise WorkerFailed(500, "Worker died.")
        if header[0].lower() not in PROTECTED_HEADERS:
            headers.append(header)
    return Reply(
        prediction.status, prediction.body, headers, LINE_BREAKERS.sub(" ", prediction.reason)
    )


def first_piece_reply(piece: Prediction) -> Reply:
    """What the first piece decides for all. TorchServe: clients see the mark of a stream."""
    reply = prediction_reply(piece)
    headers = [header for header in reply.headers if header[0].lower() != STREAM_MARK[0]]
    return replace(reply, headers=[*headers, STREAM_MARK])


def is_header(name: bytes, value: bytes) -> bool:
    """Whether a header can be written without ending the line, or the head, too early."""
    if not name or not name.isascii() or any(byte in b' \t\r\n\0:,;="' for byte in name):
        return False
    return not any(byte in value for byte in (b"\r", b"\n", b"\0"))


def with_common_headers(reply: Reply, request_id: str, cors: Sequence[Header]) -> list[Header]:
    """All headers but the framing, which belongs to the protocol."""
    headers = list(reply.headers)
    if cors:
        own = {name.lower() for name, _ in headers}
        headers.extend(header for header in cors if header[0] not in own)
    headers.append((b"x-request-id", request_id.encode()))
    headers.extend(NO_CACHE)
    return headers


def standard_phrase(status: int) -> str:
    """The reason phrase TorchServe gives a status, also for those without one of their own."""
    if status in NETTY_PHRASES:
        return NETTY_PHRASES[status]
    try:
        if status not in UNKNOWN_TO_NETTY:
            return http.HTTPStatus(status).phrase
    except ValueError:
        pass
    status_class = "Unknown Status" if not 100 <= status < 600 else "Server Error"
    return f"{STATUS_CLASSES.get(status // 100, status_class)} ({status})"
