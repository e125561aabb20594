"""Routes that plugins add to a port, by the first segment of the path.

A plugin's function is a guest: whatever it raises or returns, its client gets an answer and the
server goes on. One that is not `async` runs in a thread, so that it may take its time.
"""

import asyncio
import inspect
import logging
import traceback
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, cast

from torchkeep.frontend.call import Call
from torchkeep.frontend.errors import InternalServerError, MethodNotAllowed
from torchkeep.frontend.registry import ModelRegistry
from torchkeep.frontend.responses import (
    JSON_TYPE,
    PROTECTED_HEADERS,
    Header,
    Reply,
    is_header,
    pretty_json,
)
from torchkeep.frontend.side_thread import in_side_thread
from torchkeep.runtime.errors import ConfigError
from torchkeep.runtime.messages import Body
from torchkeep.runtime.plugin_loading import Found
from torchkeep.runtime.plugins import (
    Answer,
    Endpoint,
    ModelState,
    Port,
    Request,
    Response,
    ServerState,
)

log = logging.getLogger("torchkeep.frontend")

MAX_THREADS = 32  # of all plugins of a port; whoever comes then waits until one has ended
TEXT_TYPE: Header = (b"content-type", b"text/plain; charset=utf-8")
BYTES_TYPE: Header = (b"content-type", b"application/octet-stream")
_INFERENCE = (
    "api-description",
    "explanations",
    "invocations",
    "models",
    "ping",
    "predictions",
    "v1",
    "v2",
    "wfpredict",
)
_MANAGEMENT = ("api-description", "metrics", "models", "token", "v1", "workflows")
BUILT_IN = {"inference": frozenset(_INFERENCE), "management": frozenset(_MANAGEMENT)}
REPLACEABLE = frozenset(["ping"])


class PluginEndpoints:
    """The router of one port. `find_state` is asked for each request."""

    def __init__(
        self,
        endpoints: Sequence[Endpoint],
        find_state: Callable[[], ServerState],
        *,
        hides_errors: bool = False,
    ) -> None:
        """`hides_errors`: the log names the kind of an exception and its place, not its text."""
        self._endpoints: dict[str, dict[str, Endpoint]] = {}
        for one in endpoints:
            methods = self._endpoints.setdefault(one.path, {})
            methods.update(dict.fromkeys(one.methods, one))
        self._find_state = find_state
        self._hides_errors = hides_errors
        self._threads = asyncio.Semaphore(MAX_THREADS)

    def owns(self, call: Call) -> bool:
        """Whether the path is a plugin's."""
        segments = call.segments
        return bool(segments) and segments[0] in self._endpoints

    def route(self, call: Call) -> Awaitable[Reply] | None:
        """HEAD is answered as GET is, without the body."""
        methods = self._endpoints.get(call.segments[0])
        if methods is None:
            return None
        found = methods.get(call.method) or (methods.get("GET") if call.method == "HEAD" else None)
        if found is None:
            raise MethodNotAllowed
        return self._answer(call, found)

    async def _answer(self, call: Call, endpoint: Endpoint) -> Reply:
        request = Request(
            call.method,
            call.scope["path"],
            call.query,
            {
                name.decode("latin-1"): value.decode("latin-1")
                for name, value in reversed(call.scope["headers"])
            },
            bytes(await call.body()),
            self._find_state(),
        )
        running = asyncio.ensure_future(self._reply(call, endpoint, request))
        with call.abandons(running):
            return await running

    async def _reply(self, call: Call, endpoint: Endpoint, request: Request) -> Reply:
        """Raises InternalServerError, whatever it was that the function raised."""
        try:
            return _reply(await self._run(endpoint, request))
        except (Exception, SystemExit, KeyboardInterrupt) as error:
            self._log(call, endpoint, error)
            raise InternalServerError(
                f"Plugin endpoint /{endpoint.path} failed; the server's log says how."
            ) from error

    async def _run(self, endpoint: Endpoint, request: Request) -> Answer:
        call: Callable[[], Any] = partial(endpoint.function, request)
        if inspect.iscoroutinefunction(endpoint.function):
            answer = call()
        else:
            answer = await self._in_thread(call)
        # A plain function may return something to wait for, too: a decorator's, for example.
        if inspect.isawaitable(answer):
            answer = await answer
        return cast(Answer, answer)

    async def _in_thread(self, function: Callable[[], Any]) -> Any:
        """Its slot is free again when it ends, which may be long after its client has left."""
        await self._threads.acquire()
        loop = asyncio.get_running_loop()

        def run() -> Any:
            try:
                return function()
            finally:
                with suppress(RuntimeError):  # the loop is closed
                    loop.call_soon_threadsafe(self._threads.release)

        return await in_side_thread(run)

    def _log(self, call: Call, endpoint: Endpoint, error: BaseException) -> None:
        if not self._hides_errors:
            log.error("%s: plugin endpoint /%s", call.request_id, endpoint.path, exc_info=error)
            return
        # The text of an exception may hold what the client sent.
        last = traceback.extract_tb(error.__traceback__)[-1]
        kind = type(error).__name__
        where = f"{last.filename}, line {last.lineno}"
        log.error("%s: plugin endpoint /%s: %s, %s", call.request_id, endpoint.path, kind, where)


def endpoints_of(port: Port, endpoints: Sequence[Found]) -> list[Endpoint]:
    """What one port gets of all that plugins hold."""
    return [found.endpoint for found in endpoints if found.endpoint.port == port]


def check_endpoints(endpoints: Sequence[Found], *, share_port: bool) -> None:
    """Raises ConfigError, naming file and line, where two want one path, or one a built-in's."""
    owners: dict[tuple[str, str, str], str] = {}
    for found in endpoints:
        one = found.endpoint
        reserved = BUILT_IN[one.port]
        if share_port:
            reserved = reserved.union(*BUILT_IN.values())
        if one.path.lower() in reserved:
            _check_replacement(found)
        for method in one.methods:
            key = ("" if share_port else one.port, one.path, method)
            if key in owners:
                raise ConfigError(
                    f"plugins_path: {found.origin}: {method} /{one.path} is answered already, by "
                    f"{owners[key]}"
                )
            owners[key] = found.origin


def server_state(registry: ModelRegistry, max_request_bytes: int) -> ServerState:
    """What plugins are told about the server."""
    models = [
        ModelState(
            served.spec.name,
            served.spec.version,
            registry.is_default(served.spec.name, served.spec.version),
            len(served.workers),
            sum(worker.is_ready for worker in served.workers),
        )
        for served in registry.all()
    ]
    return ServerState(registry.is_healthy(), models, max_request_bytes)


def _check_replacement(found: Found) -> None:
    path = found.endpoint.path
    if path not in REPLACEABLE:
        raise ConfigError(
            f"plugins_path: {found.origin}: /{path} is the server's own and cannot be replaced"
        )
    if not found.endpoint.replaces_builtin:
        # TorchServe: a plugin with the path of a built-in route takes its place, and nobody says so
        raise ConfigError(
            f"plugins_path: {found.origin}: /{path} is the server's own; say "
            f'@endpoint("{path}", replaces_builtin=True) to answer in its place'
        )


def _reply(answer: Answer) -> Reply:
    """Raises ValueError and TypeError for what cannot be sent."""
    response = answer if isinstance(answer, Response) else Response(answer)
    if type(response.status) is not int or not 200 <= response.status <= 599:
        raise ValueError(f"the status must be a number from 200 to 599, not {response.status!r}")
    body, kind = _body(response.body)
    headers = _headers(response.headers)
    if all(name.lower() != b"content-type" for name, _ in headers):
        headers.append(kind)
    return Reply(response.status, body, headers)


def _body(content: object) -> tuple[Body, Header]:
    match content:
        case bytes() | bytearray() | memoryview():
            return bytes(content), BYTES_TYPE
        case str():
            return content.encode("utf-8", "replace"), TEXT_TYPE
        case Mapping():
            return pretty_json(dict(content)), JSON_TYPE
        case Sequence():
            return pretty_json(list(content)), JSON_TYPE
    raise TypeError(
        f"returned {type(content).__name__}: expected a Response, a mapping, a sequence, str or"
        " bytes"
    )


def _headers(headers: Mapping[str, str]) -> list[Header]:
    encoded = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers.items()]
    for name, value in encoded:
        if not is_header(name, value):
            raise ValueError(f"the header {name!r} cannot be sent as it is")
    return [header for header in encoded if header[0].lower() not in PROTECTED_HEADERS]
