"""One request to one of our ports, before anybody knows what it asks for."""

import asyncio
import logging
import re
import time
from collections.abc import Sequence
from functools import cached_property
from typing import Any, Protocol
from urllib.parse import unquote_plus

from starlette.types import Receive, Scope

from torchkeep.frontend.envelope import Envelope
from torchkeep.frontend.errors import BadEscape, BadRequest
from torchkeep.frontend.exchange import EXCHANGE, Exchange
from torchkeep.frontend.responses import Header, new_request_id

log = logging.getLogger("torchkeep.frontend")

MAX_QUERY_FIELDS = 1000
BAD_ESCAPE = re.compile(rb"%(?![0-9a-fA-F]{2})")
QUERY_FIELD = re.compile(rb"[^&;]+")
JAVA_INTEGER = re.compile(r"[+-]?[0-9]{1,10}")


class Cancellable(Protocol):
    """What is done for a client: a job, or a task."""

    def cancel(self) -> object:
        """Nobody waits for it any more."""
        ...


class ClientGone(Exception):
    """Nobody is left to answer."""


class Call:
    """What a route may ask about a request; the body is read only when it does."""

    def __init__(self, scope: Scope, receive: Receive) -> None:
        self.scope = scope
        self.method: str = scope["method"]
        self.request_id = new_request_id()
        self.started = time.perf_counter()
        self.model_name = ""  # of the model that answers, once a route has found it
        self.envelope: Envelope | None = None  # what its answer is put into
        self._receive = receive
        self._segments: list[str] | None = None

    @property
    def segments(self) -> list[str]:
        """The decoded path between its slashes, without the empty ones at its end."""
        # Not `cached_property`, which takes a lock at its first use: that is every request.
        if self._segments is None:
            self._segments = self._split_path()
        return self._segments

    def _split_path(self) -> list[str]:
        # TorchServe: decoded before it is split, so %2F separates and `//ping` is not /ping
        raw_path: bytes = self.scope.get("raw_path", b"")  # ASGI: optional
        if b"%" in raw_path and (bad := BAD_ESCAPE.search(raw_path)):
            raise BadEscape(self._target, bad.start())
        segments: list[str] = self.scope["path"].split("/")
        while segments and not segments[-1]:
            segments.pop()
        return segments[1:]

    @property
    def _target(self) -> str:
        """Path and query as they were sent."""
        query: bytes = self.scope["query_string"]
        path: bytes = self.scope["raw_path"]
        return (path + b"?" + query if query else path).decode("latin-1")

    @property
    def peer(self) -> str:
        """The address of the client; nothing where it came by a unix socket."""
        client = self.scope.get("client")
        return str(client[0]) if client else ""

    @property
    def spelled_headers(self) -> list[Header]:
        """Names as the client spelled them, where the server kept the spelling."""
        headers: list[Header] = self.scope.get("spelled_headers") or self.scope["headers"]
        return headers

    def header(self, name: bytes) -> str:
        """The first header of this lower-case name, or nothing."""
        for other, value in self.scope["headers"]:
            if other == name:
                return str(value, "latin-1")
        return ""

    @cached_property
    def query(self) -> dict[str, str]:
        """Query parameters; of a repeated one the first counts, as in TorchServe."""
        return dict(reversed(self.query_fields))

    @cached_property
    def query_fields(self) -> list[tuple[str, str]]:
        """Names and values, in order. Raises BadEscape, and BadRequest for very many."""
        query: bytes = self.scope["query_string"]
        fields = []
        # TorchServe: a semicolon separates too, and a hash ends it all
        for match in QUERY_FIELD.finditer(query.partition(b"#")[0]):
            if bad := BAD_ESCAPE.search(match[0]):
                start = self._target.index("?") + 1
                raise BadEscape(self._target, start + match.start() + bad.start())
            # TorchServe: equal signs before a name are skipped
            name, _, value = match[0].lstrip(b"=").partition(b"=")
            if name:
                fields.append((_unquoted(name), _unquoted(value)))
        if len(fields) > MAX_QUERY_FIELDS:
            raise BadRequest("Too many query parameters.")
        return fields

    def query_values(self, name: str) -> list[str]:
        """All values of a query parameter that may be repeated."""
        return [value for other, value in self.query_fields if other == name]

    def query_optional_integer(self, name: str) -> int | None:
        """TorchServe: an integer that does not parse is as good as none."""
        text = self.query.get(name, "")
        if JAVA_INTEGER.fullmatch(text) and -(2**31) <= int(text) < 2**31:
            return int(text)
        return None

    def query_integer(self, name: str, default: int) -> int:
        """The same, with a default in its place."""
        number = self.query_optional_integer(name)
        return default if number is None else number

    def query_flag(self, name: str, default: bool) -> bool:
        """Only the word true, in any case, is true."""
        text = self.query.get(name)
        return default if text is None else text.lower() == "true"

    def unseal(self, headers: Sequence[Header], query: str) -> None:
        """Go on with what was sealed, in place of what a proxy could see and change."""
        self.scope = {
            **self.scope,
            "headers": [(name.lower(), value) for name, value in headers],
            "spelled_headers": headers,
            "query_string": query.encode(),
        }

    async def body(self) -> bytes:
        """The whole body; our protocol hands it over in one piece and within its limit."""
        message: Any = await self._receive()
        if message["type"] == "http.disconnect":
            raise ClientGone
        chunks = [message.get("body", b"")]
        while message.get("more_body"):
            message = await self._receive()
            if message["type"] == "http.disconnect":
                raise ClientGone
            chunks.append(message.get("body", b""))
        return chunks[0] if len(chunks) == 1 else b"".join(chunks)

    def abandons(self, job: Cancellable) -> "Abandoning":
        """Cancel the job, and leave the block with ClientGone, when the client disconnects.

        The protocol calls us back, which costs nothing, where waiting for
        `http.disconnect` beside the reply would cost two tasks per request.
        """
        return Abandoning(job, self._exchange)

    def cut(self, error: Exception) -> None:
        """Reset the connection: what has been sent of the answer is not all of it."""
        # The text of an error may hold a payload, so its kind must do.
        log.warning("%s: stream cut, %s", self.request_id, type(error).__name__)
        if self._exchange is not None:
            self._exchange.reset()

    @property
    def _exchange(self) -> Exchange | None:
        exchange: Exchange | None = self.scope.get("extensions", {}).get(EXCHANGE)
        return exchange


def _unquoted(text: bytes) -> str:
    return unquote_plus(text.decode("utf-8", "replace"))


class Abandoning:
    """The block of `Call.abandons`."""

    __slots__ = ("_exchange", "_job")

    def __init__(self, job: Cancellable, exchange: Exchange | None) -> None:
        self._job = job
        self._exchange = exchange

    def __enter__(self) -> None:
        if self._exchange is None:
            return
        if self._exchange.disconnected:
            self._job.cancel()
            raise ClientGone
        self._exchange.on_disconnect = self._job.cancel

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        exchange = self._exchange
        if exchange is not None:
            exchange.on_disconnect = None
        if kind is None:
            return
        self._job.cancel()
        if kind is asyncio.CancelledError and exchange is not None and exchange.disconnected:
            raise ClientGone from None
