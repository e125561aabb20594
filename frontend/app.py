"""The three ports as ASGI applications.

Every port is a list of routers, asked in TorchServe's order; the first that knows the path
answers. Paths are split by hand, as TorchServe does it, and not by Starlette's router, so a
prediction costs no Request object, no middleware and no regular expression.
"""

import logging
from collections.abc import Awaitable, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Protocol

from starlette.types import ASGIApp, Receive, Scope, Send

from torchkeep.frontend.api_keys import ApiKeys, KeyKind
from torchkeep.frontend.attestation import Attestation, Attestor
from torchkeep.frontend.authorization import KeyCheck, KeyRenewal
from torchkeep.frontend.call import Call, ClientGone
from torchkeep.frontend.errors import (
    MethodNotAllowed,
    RequestError,
    ResourceNotFound,
    is_meant_for_client,
)
from torchkeep.frontend.exchange import Exchange
from torchkeep.frontend.inference import Inference
from torchkeep.frontend.jobs import Failure, Job
from torchkeep.frontend.management import Management
from torchkeep.frontend.metrics import Metrics
from torchkeep.frontend.open_inference import Liveness, OpenInference
from torchkeep.frontend.openapi import (
    Json,
    inference_document,
    management_document,
    metrics_document,
    shared_document,
)
from torchkeep.frontend.piece_stream import ClientTooSlow
from torchkeep.frontend.plugin_endpoints import PluginEndpoints
from torchkeep.frontend.prometheus import TEXT_TYPE
from torchkeep.frontend.registry import ModelRegistry
from torchkeep.frontend.request_opener import RequestOpener
from torchkeep.frontend.responses import (
    Cors,
    Reply,
    StreamedReply,
    error_reply,
    json_reply,
    with_common_headers,
)
from torchkeep.runtime.messages import Body, Prediction

log = logging.getLogger("torchkeep.frontend")


@dataclass(frozen=True, slots=True)
class ApiSettings:
    """What the configuration decides about the ports."""

    is_model_api_enabled: bool = False
    on_change: Callable[[], Awaitable[None]] | None = None  # of what is served
    is_open_inference_enabled: bool = False
    cors: Cors = field(default_factory=Cors)
    keys: ApiKeys | None = None  # None: nobody needs one
    attestor: Attestor | None = None  # None: this machine is no TEE
    # What plugins add, for each port.
    inference_plugins: PluginEndpoints | None = None
    management_plugins: PluginEndpoints | None = None
    opener: RequestOpener | None = None  # None: nobody could know the keys for it


class Router(Protocol):
    """A family of routes."""

    def route(self, call: Call) -> Awaitable[Reply | StreamedReply] | None:
        """The answer to be, or None where the path belongs to somebody else."""
        ...


class Api:
    """One port."""

    def __init__(self, routers: Sequence[Router], metrics: Metrics, cors: Cors) -> None:
        self._routers = routers
        self._inference = next((one for one in routers if isinstance(one, Inference)), None)
        self._check = next((one for one in routers if isinstance(one, KeyCheck)), None)
        self._plugins = next((one for one in routers if isinstance(one, PluginEndpoints)), None)
        self._metrics = metrics
        self.cors_headers = cors.as_headers()

    def begin(self, exchange: Exchange) -> bool:
        """Take a prediction: its answer comes with its worker's, in the same turn of the loop.

        All else is left to `__call__`. A task for each request, which waits for that answer,
        would cost as much again as everything else that is done for a small one.
        """
        if self._inference is None:
            return False
        call = Call(exchange.scope, exchange.receive)
        if self._check is not None and not self._check.admits(call):
            return False
        try:
            if self._plugins is not None and self._plugins.owns(call):
                return False
            job = self._inference.submit(call, exchange.request_body)
        except Exception as error:
            self._respond(exchange, call, self._failure(call, error))
            return True
        if job is None:
            return False
        if call.envelope is not None:
            exchange.request_body = b""  # it is opened: why hold it while the answer is made?
        exchange.on_disconnect = job.cancel
        job.when_answered(partial(self._finish, self._inference, exchange, call, job))
        return True

    def refused(self, status: int) -> None:
        """The connection itself answered what was no request."""
        self._metrics.response(status)

    def _finish(
        self,
        inference: Inference,
        exchange: Exchange,
        call: Call,
        job: Job,
        outcome: Prediction | Failure,
    ) -> None:
        try:
            reply = inference.reply(call, job, outcome)
        except Exception as error:
            reply = self._failure(call, error)
        if isinstance(reply, StreamedReply):
            exchange.start_task(partial(self._send_rest, call, reply))
        else:
            self._respond(exchange, call, reply)

    def _respond(self, exchange: Exchange, call: Call, reply: Reply) -> None:
        status = reply.status
        if call.envelope is not None:
            reply = call.envelope.enclose(reply)
        headers = with_common_headers(reply, call.request_id, self.cors_headers)
        exchange.respond(reply.status, reply.reason, headers, reply.body)
        self._metrics.response(status)

    async def _send_rest(
        self, call: Call, reply: StreamedReply, _scope: Scope, _receive: Receive, send: Send
    ) -> None:
        await self._send_stream(call, reply, send)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        call = Call(scope, receive)
        try:
            reply = await self._route(call)
        except ClientGone:
            log.debug("%s: the client left", call.request_id)
            return
        except Exception as error:
            reply = self._failure(call, error)
        if isinstance(reply, StreamedReply):
            await self._send_stream(call, reply, send)
            return
        status = reply.status
        if call.envelope is not None:
            reply = call.envelope.enclose(reply)
        await send(self._start(call, reply))
        await send(_body(reply.body, is_last=True))
        self._metrics.response(status)

    def _failure(self, call: Call, error: Exception) -> Reply:
        if not is_meant_for_client(error):
            log.error("%s: unexpected error", call.request_id, exc_info=error)
        if call.envelope is not None:
            call.envelope.model = None  # it is not the model that answers
        return error_reply(error)

    def _start(self, call: Call, reply: Reply) -> dict[str, Any]:
        headers = with_common_headers(reply, call.request_id, self.cors_headers)
        start = {"type": "http.response.start", "status": reply.status, "headers": headers}
        if reply.reason is not None:
            start["reason"] = reply.reason
        return start

    async def _send_stream(self, call: Call, reply: StreamedReply, send: Send) -> None:
        status = reply.first.status
        if call.envelope is not None:
            reply = call.envelope.enclose_stream(reply)
        async with aclosing(reply.rest):
            await send(self._start(call, reply.first))
            await send(_body(reply.first.body, is_last=False))
            self._metrics.response(status)
            try:
                async for piece, is_last in reply.rest:
                    await send(_body(piece, is_last))
            except ClientGone:
                log.debug("%s: the client left in the middle of a stream", call.request_id)
            except (RequestError, ClientTooSlow) as error:
                call.cut(error)

    def _route(self, call: Call) -> Awaitable[Reply | StreamedReply]:
        for router in self._routers:
            answer = router.route(call)
            if answer is not None:
                return answer
        raise ResourceNotFound


def _body(body: Body, is_last: bool) -> dict[str, Any]:
    return {"type": "http.response.body", "body": body, "more_body": not is_last}


class ApiDescription:
    """A port's OpenAPI document. The first router of each port: who asks needs no key."""

    def __init__(self, document: Json) -> None:
        self._document = document

    def route(self, call: Call) -> Awaitable[Reply] | None:
        """OPTIONS of the root, or the old path of its own; the root knows nothing else."""
        if not call.segments:
            # TorchServe: `//` is no root
            if call.method != "OPTIONS" or call.scope["path"] != "/":
                raise MethodNotAllowed
        elif call.segments != ["api-description"]:
            return None
        return self._describe()

    async def _describe(self) -> Reply:
        return json_reply(self._document)


class MetricsPage:
    """The Prometheus text."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics

    def route(self, call: Call) -> Awaitable[Reply] | None:
        """Any method, and whatever follows the first segment."""
        return self._text(call) if call.segments[0] == "metrics" else None

    async def _text(self, call: Call) -> Reply:
        names = call.query_values("name[]")
        return Reply(200, self._metrics.text(names), ((b"content-type", TEXT_TYPE),))


def inference_app(registry: ModelRegistry, metrics: Metrics, settings: ApiSettings) -> ASGIApp:
    """What listens on `inference_address`."""
    routers: list[Router] = [
        *_liveness(settings),
        ApiDescription(inference_document()),  # which needs no key
        *_attestation(settings),  # nor this: whoever has yet to trust us shows none
        *_checks(settings.keys, "inference"),
        *_plugins(settings.inference_plugins),
        Inference(registry, metrics, settings.opener),
        *_open_inference(registry, settings),
    ]
    return Api(routers, metrics, settings.cors)


def management_app(registry: ModelRegistry, metrics: Metrics, settings: ApiSettings) -> ASGIApp:
    """What listens on `management_address`."""
    routers: list[Router] = [
        ApiDescription(management_document()),
        *_renewal(settings.keys),
        *_checks(settings.keys, "management"),
        *_plugins(settings.management_plugins),
        Management(registry, settings.is_model_api_enabled, settings.on_change),
    ]
    return Api(routers, metrics, settings.cors)


def metrics_app(metrics: Metrics, settings: ApiSettings) -> ASGIApp:
    """What listens on `metrics_address`."""
    return Api([ApiDescription(metrics_document()), MetricsPage(metrics)], metrics, settings.cors)


def shared_app(
    registry: ModelRegistry, metrics: Metrics, settings: ApiSettings, with_metrics: bool
) -> ASGIApp:
    """What listens where inference and management have one address."""
    keys = settings.keys
    # TorchServe asks for both keys in one header, which nobody can show.
    routers: list[Router] = [
        *_liveness(settings),
        ApiDescription(shared_document()),
        *_attestation(settings),
        *_renewal(keys),
        *_checks(keys, "inference", "management"),
        *_plugins(settings.inference_plugins),
        Inference(registry, metrics, settings.opener),
        *_open_inference(registry, settings),
        *_checks(keys, "management"),
        *_plugins(settings.management_plugins),
        Management(registry, settings.is_model_api_enabled, settings.on_change),
    ]
    if with_metrics:
        routers.append(MetricsPage(metrics))
    return Api(routers, metrics, settings.cors)


def _attestation(settings: ApiSettings) -> list[Router]:
    return [] if settings.attestor is None else [Attestation(settings.attestor)]


def _checks(keys: ApiKeys | None, *kinds: KeyKind) -> list[Router]:
    return [] if keys is None else [KeyCheck(keys, *kinds)]


def _renewal(keys: ApiKeys | None) -> list[Router]:
    return [] if keys is None else [KeyRenewal(keys)]


def _plugins(endpoints: PluginEndpoints | None) -> list[Router]:
    return [] if endpoints is None else [endpoints]


def _liveness(settings: ApiSettings) -> list[Router]:
    return [Liveness()] if settings.is_open_inference_enabled else []


def _open_inference(registry: ModelRegistry, settings: ApiSettings) -> list[Router]:
    return [OpenInference(registry)] if settings.is_open_inference_enabled else []
