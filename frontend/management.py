"""The management port: register, scale, describe, list, set the default, unregister."""

from collections.abc import Awaitable, Callable

from torchkeep.frontend.call import Call
from torchkeep.frontend.describe import MISSING, customized_metadata, describe
from torchkeep.frontend.errors import (
    BadRequest,
    IndexOutOfBounds,
    MethodNotAllowed,
    RequestError,
    RequestTimeout,
    ResourceNotFound,
    ServiceUnavailable,
    WorkerFailed,
)
from torchkeep.frontend.openapi import model_management_document
from torchkeep.frontend.parsing import read_headers
from torchkeep.frontend.registration import read_registration
from torchkeep.frontend.registry import ModelRegistry
from torchkeep.frontend.responses import (
    JSON_TYPE,
    Reply,
    json_reply,
    prediction_reply,
    pretty_json,
    status_reply,
)
from torchkeep.frontend.served_model import ServedModel
from torchkeep.runtime.messages import RequestInput

MAX_LISTED = 100
UPDATING = "Processing worker updates..."
INCOMPLETE = "Workers scaling in progress..."


class Management:
    """The routes under `/models`, and KServe's question whether a model is ready."""

    def __init__(
        self,
        registry: ModelRegistry,
        is_model_api_enabled: bool,
        on_change: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        self._registry = registry
        self._is_model_api_enabled = is_model_api_enabled
        self._on_change = on_change  # called before the answer that tells of it

    def route(self, call: Call) -> Awaitable[Reply] | None:
        """TorchServe: segments first, then the method."""
        match call.segments:
            case ["models"]:
                return self._route_models(call)
            case ["models", name]:
                return self._route_model(call, name, None)
            case ["models", name, version]:
                return self._route_model(call, name, version)
            case ["models", name, version, "set-default"]:
                if call.method == "PUT":
                    return self._set_default(name, version)
                # TorchServe: any other method acts as if the path had ended after the name
                return self._route_model(call, name, None)
            case ["models", *_]:
                raise ResourceNotFound
            case ["v1", "models", name]:
                # TorchServe: what follows a colon is not looked at
                return self._readiness(call, name.partition(":")[0])
        return None

    def _route_models(self, call: Call) -> Awaitable[Reply]:
        match call.method:
            case "GET":
                return self._list(call)
            case "POST" if self._is_model_api_enabled:
                return self._register(call)
        raise MethodNotAllowed

    def _route_model(self, call: Call, name: str, version: str | None) -> Awaitable[Reply]:
        match call.method:
            case "OPTIONS":
                return self._describe_api(name, version)
            case "GET":
                return self._describe(call, name, version)
            case "PUT":
                return self._scale(call, name, version or call.query.get("model_version"))
            case "DELETE" if self._is_model_api_enabled:
                return self._unregister(name, version)
        raise MethodNotAllowed

    async def _changed(self, reply: Reply) -> Reply:
        if self._on_change is not None:
            await self._on_change()
        return reply

    async def _register(self, call: Call) -> Reply:
        return await self._changed(await self._register_model(call))

    async def _scale(self, call: Call, name: str, version: str | None) -> Reply:
        return await self._changed(await self._scale_model(call, name, version))

    async def _register_model(self, call: Call) -> Reply:
        registration, is_synchronous = await read_registration(call)
        model = await self._registry.register(registration)
        spec = model.spec
        registered = f'Model "{spec.name}" Version: {spec.version} registered with '
        if spec.min_workers <= 0:
            return status_reply(
                registered
                + "0 initial workers. Use scale workers API to add workers for the model."
            )
        if not is_synchronous:
            model.begin_scale(spec.min_workers, spec.max_workers)
            return status_reply(UPDATING, 202)
        status = await model.scale(spec.min_workers, spec.max_workers)
        if status != 200:
            error = _start_failed(model, spec.version, status)
            # TorchServe forgets this for some failures: the model stays, without workers, and
            # registering a corrected archive is then a conflict.
            await self._registry.unregister(model.spec.name, model.spec.version)
            raise error
        if not model.is_ready:
            return status_reply(INCOMPLETE, 206)
        return status_reply(f"{registered}{spec.min_workers} initial workers")

    async def _scale_model(self, call: Call, name: str, version: str | None) -> Reply:
        min_workers = call.query_integer("min_worker", 1)
        max_workers = call.query_integer("max_worker", min_workers)
        if max_workers < min_workers:
            raise BadRequest("max_worker cannot be less than min_worker.")
        model = self._registry.get(name, version)
        if max_workers < 0:
            # TorchServe: it counts down an array; only a negative minimum passes
            raise IndexOutOfBounds(-1)
        if not call.query_flag("synchronous", default=False):
            model.begin_scale(min_workers, max_workers)
            return status_reply(UPDATING, 202)
        status = await model.scale(min_workers, max_workers)
        if status != 200:
            raise _start_failed(model, version or "null", status)
        if not model.is_ready:
            return status_reply(INCOMPLETE, 206)
        suffix = "" if version is None else f", version: {version}"
        return status_reply(f"Workers scaled to {min_workers} for model: {name}{suffix}")

    async def _readiness(self, call: Call, name: str) -> Reply:
        if call.method != "GET":
            raise MethodNotAllowed
        # TorchServe: a worker that has not loaded yet counts
        is_ready = not self._registry.is_waiting(name) and bool(self._registry.get(name).workers)
        return json_reply({"name": name, "ready": is_ready})

    async def _describe_api(self, name: str, version: str | None) -> Reply:
        if not self._registry.is_waiting(name, version):
            self._registry.get(name, version)
        return json_reply(model_management_document(name))

    async def _describe(self, call: Call, name: str, version: str | None) -> Reply:
        if version == "all":
            described = [describe(model) for model in self._registry.versions(name)]
            waiting = self._registry.waiting(name)
            return json_reply([*described, *(one.describe() for one in waiting)])
        if self._registry.is_waiting(name, version):
            return json_reply([one.describe() for one in self._registry.waiting(name, version)])
        model = self._registry.get(name, version)
        if not call.query_flag("customized", default=False):
            return json_reply([describe(model)])
        return await self._describe_customized(call, model, version)

    async def _describe_customized(
        self, call: Call, model: ServedModel, version: str | None
    ) -> Reply:
        """Asks the handler too; its status and headers become those of the answer."""
        headers = read_headers(call.spelled_headers, await call.body(), {"describe": "True"})
        try:
            job = model.submit(RequestInput(call.request_id, headers, []), version, describes=True)
        except ServiceUnavailable as error:
            raise ServiceUnavailable(
                f'Model "{model.spec.name}" has no worker to serve describe request. '
                "Please use scale workers API to add workers."
            ) from error
        with call.abandons(job):
            prediction = await job.reply()
        described = describe(model)
        metadata = customized_metadata(prediction.body)
        if metadata is not MISSING:
            described["customizedMetadata"] = metadata
        reply = prediction_reply(prediction)
        headers_of_reply = list(reply.headers)
        if all(header.lower() != JSON_TYPE[0] for header, _ in headers_of_reply):
            headers_of_reply.append(JSON_TYPE)
        return Reply(reply.status, pretty_json([described]), headers_of_reply, reply.reason)

    async def _list(self, call: Call) -> Reply:
        limit = call.query_integer("limit", MAX_LISTED)
        if not 0 <= limit <= MAX_LISTED:
            limit = MAX_LISTED
        start = max(0, call.query_integer("next_page_token", 0))
        urls = self._registry.urls()
        page: dict[str, object] = {}
        if start + limit <= len(urls):
            # TorchServe: also when the page ends exactly at the end
            page["nextPageToken"] = str(start + limit)
        page["models"] = [
            {"modelName": name, "modelUrl": url} for name, url in urls[start : start + limit]
        ]
        return json_reply(page)

    async def _set_default(self, name: str, version: str) -> Reply:
        self._registry.set_default(name, version)
        return await self._changed(
            status_reply(f'Default version successfully updated for model "{name}" to "{version}"')
        )

    async def _unregister(self, name: str, version: str | None) -> Reply:
        await self._registry.unregister(name, version)
        return await self._changed(status_reply(f'Model "{name}" unregistered'))


def _start_failed(model: ServedModel, version: str, status: int) -> RequestError:
    """TorchServe's text, and behind it what it keeps in its log: the handler's last words."""
    message = f"Failed to start workers for model {model.spec.name} version: {version}"
    hints = [worker.last_error for worker in model.workers if worker.last_error]
    if hints:
        message += f" : {hints[0]}"
    if status == 408:
        return RequestTimeout(message)
    return WorkerFailed(status, message)
