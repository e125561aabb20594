"""What a plugin is made of. This module is the whole of the interface: docs/plugins.md.

from torchkeep.runtime.plugins import Request, endpoint

@endpoint("hello")
def hello(request: Request) -> dict[str, str]:
    return {"hello": request.query.get("name", "world")}
"""

import inspect
import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

from torchkeep.runtime.snapshot import SnapshotStore as SnapshotStore

Port = Literal["inference", "management"]

_SEGMENT = re.compile(r"[A-Za-z0-9._~-]+")
_METHOD = re.compile(r"[A-Z]+")


@dataclass(frozen=True, slots=True)
class ModelState:
    """One version of a model."""

    name: str
    version: str
    is_default: bool
    workers: int
    workers_ready: int


@dataclass(frozen=True, slots=True)
class ServerState:
    """How the server is doing, at the moment of the request."""

    is_healthy: bool  # what /ping would say
    models: Sequence[ModelState]
    max_request_bytes: int


@dataclass(frozen=True, slots=True)
class Request:
    """What the client sent."""

    method: str
    path: str  # decoded, as in "/hello/and/more"
    query: Mapping[str, str]  # of a repeated parameter the first counts
    headers: Mapping[str, str]  # names in lower case; of a repeated one the first counts
    body: bytes
    server: ServerState


@dataclass(frozen=True, slots=True)
class Response:
    """An answer that says more than its body. The server adds its own headers."""

    body: Any = b""  # as an endpoint may return it
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)


# A mapping or a sequence becomes JSON, a text is text, bytes are sent as they are.
Answer: TypeAlias = Response | Mapping[str, Any] | Sequence[Any] | str | bytes
Function: TypeAlias = Callable[[Request], Answer | Awaitable[Answer]]


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A function that answers for all paths that begin with one segment. Still callable."""

    path: str  # that segment
    port: Port
    methods: tuple[str, ...]
    replaces_builtin: bool
    function: Function

    def __call__(self, request: Request) -> Answer | Awaitable[Answer]:
        return self.function(request)


def endpoint(
    path: str,
    *,
    port: Port = "inference",
    methods: Sequence[str] = ("GET",),
    replaces_builtin: bool = False,
) -> Callable[[Function], Endpoint]:
    """Let the function answer `/path` and what lies below it; other methods get 405.

    An `async` function runs on the server's event loop and must never block it; any other
    has a thread to itself. `replaces_builtin` is for `ping`, the one route of the server
    that a plugin may take over.
    """
    segment = path.strip("/")
    if not _SEGMENT.fullmatch(segment):
        raise ValueError(f'the path "{path}" is not one segment of letters, digits and . _ ~ -')
    if port not in ("inference", "management"):
        raise ValueError(f'the port "{port}" is neither "inference" nor "management"')
    if isinstance(methods, str) or not methods or not all(map(_METHOD.fullmatch, methods)):
        raise ValueError(f'{methods!r} is no list of methods such as ["GET", "POST"]')

    def mark(function: Function) -> Endpoint:
        try:
            inspect.signature(function).bind(None)
        except TypeError:
            name = getattr(function, "__name__", "the function")
            raise TypeError(f"{name} must take one argument, the request") from None
        return Endpoint(segment, port, tuple(methods), replaces_builtin, function)

    return mark
