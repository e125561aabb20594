"""OpenAPI documents: what each port can do, and what can be done with one model.

They have the paths, names, types and defaults of TorchServe's documents, also where those tell
less than the whole truth, because programs are generated from them. The words are our own.
"""

from collections.abc import Sequence
from typing import Any

Json = dict[str, Any]

VERSION = "0.12.0"  # the TorchServe release whose API this is
TITLE = "TorchServe APIs"
ABOUT = "TorchServe is a flexible and easy to use tool for serving deep learning models"
METRICS_TYPE = "text/plain; version=0.0.4; charset=utf-8"


def inference_document() -> Json:
    """What `inference_address` serves."""
    name, version = _model_name("to ask"), _model_version("to ask")
    ask = "Have the model's default version answer a request."
    return _port(
        {
            "/": _described_by_options(),
            "/ping": {"get": _ping()},
            "/v1/models/{model_name}:predict": {
                "post": _predict(f"{ask} KServe, version 1.", "predictions", [name])
            },
            "/v2/models/{model_name}/infer": {
                "post": _predict(f"{ask} KServe, version 2.", "predictions", [name])
            },
            "/predictions/{model_name}": {"post": _predict(ask, "predictions", [name])},
            "/predictions/{model_name}/{model_version}": {
                "post": _predict(
                    "Have one version of the model answer a request.",
                    "version_predictions",
                    [name, version],
                )
            },
            **_on_every_port(),
        }
    )


def management_document() -> Json:
    """What `management_address` serves."""
    return _port(
        {
            "/": _described_by_options(),
            "/models": {"get": _list_models(), "post": _register_model()},
            **_model_paths(),
            **_on_every_port(),
        }
    )


def metrics_document() -> Json:
    """What `metrics_address` serves."""
    return _port({"/metrics": {"get": _metrics()}})


def shared_document() -> Json:
    """What one address serves that is both the inference and the management address."""
    paths = {**inference_document()["paths"], **management_document()["paths"]}
    metrics = paths.pop("/metrics")
    return _port({**paths, "/metrics": metrics})


def model_document(name: str) -> Json:
    """How one model is asked."""
    operation = {
        "post": {
            "description": "Have the model answer a request.",
            "operationId": name,
            "parameters": [],
            "responses": {
                "200": {"description": "What the model's handler answers."},
                "500": _failed("The server, or the model's worker, failed."),
            },
        }
    }
    paths = [
        f"/prediction/{name}",  # TorchServe: in the singular, where there is no route
        "/v1/models/{model_name}:predict",
        "/v2/models/{model_name}/infer",
    ]
    return {
        "openapi": "3.0.1",
        "info": {"title": f"RESTful API for: {name}", "version": "1.0.0"},
        "paths": dict.fromkeys(paths, operation),
    }


def model_management_document(name: str) -> Json:
    """How one model is managed."""
    return {
        "openapi": "3.0.1",
        "info": {"title": f"RESTful Management API for: {name}", "version": VERSION},
        "paths": _model_paths(),
    }


def _port(paths: Json) -> Json:
    info = {"title": TITLE, "description": ABOUT, "version": VERSION}
    return {"openapi": "3.0.1", "info": info, "paths": paths}


def _described_by_options() -> Json:
    return {
        "options": _operation("Get this document.", "apiDescription", [], _document_responses())
    }


def _on_every_port() -> Json:
    old = _operation(
        "Get this document; OPTIONS on / does the same.",
        "api-description",
        [],
        _document_responses(),
    )
    return {
        "/api-description": {"get": {**old, "deprecated": True}},
        # TorchServe: documented on all ports, though mostly served on one of its own
        "/metrics": {"get": _metrics()},
    }


def _document_responses() -> Json:
    properties = {"openapi": _type("string"), "info": _type("object"), "paths": _type("object")}
    return {
        "200": _json("The OpenAPI document.", _object(properties, properties)),
        "500": _failed("The server failed."),
    }


def _ping() -> Json:
    status = {"status": _type("string", "Healthy or Unhealthy.")}
    responses = {
        "200": _json("Every model has the workers it was asked to have.", _object(status, status)),
        "500": _failed("A model lacks workers."),
    }
    return _operation("Ask whether the server is healthy.", "ping", [], responses)


def _metrics() -> Json:
    properties = {
        "# HELP": _type("string", "What a metric tells."),
        "# TYPE": _type("string", "The type of a metric."),
        "metric": _type("string", "A metric with its labels and its value."),
    }
    text = {METRICS_TYPE: {"schema": _object(properties, properties)}}
    responses = {
        "200": {"description": "Metrics in Prometheus' text format.", "content": text},
        "500": _failed("The server failed."),
    }
    names = _query("name[]", "string", "Only the metrics of this name; may be repeated.")
    return _operation("Get the server's metrics.", "metrics", [names], responses)


def _predict(description: str, operation_id: str, parameters: list[Json]) -> Json:
    anything = {"*/*": {"schema": {"type": "string", "format": "binary"}}}
    return {
        "description": description,
        "operationId": operation_id,
        "parameters": parameters,
        "requestBody": {
            "description": "What the model's handler understands: any type, forms included.",
            "content": anything,
            "required": True,
        },
        "responses": {
            "200": {
                "description": "What the model's handler answers, in the type it names.",
                "content": anything,
            },
            "404": _failed("There is no such model, or not in this version."),
            "500": _failed("The server, or the model's worker, failed."),
            "503": _failed("Nobody is there to answer, or the model's handler failed."),
        },
    }


def _list_models() -> Json:
    model = {
        "modelName": _type("string", "The model's name."),
        "modelUrl": _type("string", "Where its archive came from."),
    }
    properties = {
        "nextPageToken": _type("string", "The `next_page_token` of the next page, if any."),
        "models": {
            "type": "array",
            "items": _object(model, model),
            "description": "The models of this page, by name.",
        },
    }
    responses = {
        "200": _json("One page of models.", _object(properties, ["models"])),
        "500": _failed("The server failed."),
    }
    parameters = [
        _query("limit", "integer", "How many models make a page, up to 100.", "100"),
        _query("next_page_token", "string", "Where the page begins, as the last one told."),
    ]
    return _operation("List the models.", "listModels", parameters, responses)


def _register_model() -> Json:
    parameters = [
        {
            **_query("url", "string", "An archive in the model store, or where to get one."),
            "required": True,
        },
        _query("model_name", "string", "The model's name, instead of the archive's."),
        _query("handler", "string", "The handler, instead of the archive's."),
        {
            **_query("runtime", "string", "What runs the handler, instead of the archive's."),
            "schema": {"type": "string", "enum": ["PYTHON", "PYTHON3", "LSP"]},
        },
        _query("batch_size", "integer", "How many requests at most make a batch.", "1"),
        _query("max_batch_delay", "integer", "How long a batch is filled, in ms.", "100"),
        _query("response_timeout", "integer", "How long a worker may answer, in s.", "2"),
        _query("startup_timeout", "integer", "How long a worker may load, in s.", "120"),
        _query("initial_workers", "integer", "How many workers to start.", "0"),
        _query("synchronous", "boolean", "Whether to wait for these workers.", "false"),
        _query("s3_sse_kms", "boolean", "Whether S3 encrypts the archive by a KMS key.", "false"),
    ]
    responses = {
        "200": _status("The model is registered, its workers are ready."),
        "202": _status("The model is registered, its workers are starting."),
        "210": _status("The model is registered, some of its workers are not ready."),
        "400": _failed("The request, or the archive, cannot be used."),
        "404": _failed("There is no such archive."),
        "409": _failed("This version of the model is registered already."),
        "500": _failed("The server failed, or the model could not be loaded."),
    }
    return _operation("Register a model.", "registerModel", parameters, responses)


def _model_paths() -> Json:
    of_name = "/models/{model_name}"
    name, version = _model_name("that is meant"), _model_version("that is meant")
    set_default = _operation(
        "Make a version the default one.",
        "setDefault",
        [name, version],
        {
            "200": _status("It is the default version."),
            "404": _no_such_model(),
            "500": _failed("The server failed."),
        },
    )
    return {
        of_name: _model_operations("", [name]),
        of_name + "/{model_version}": _model_operations("version_", [name, version]),
        of_name + "/{model_version}/set-default": {"put": set_default},
    }


def _model_operations(prefix: str, path: list[Json]) -> Json:
    is_synchronous = _query("synchronous", "boolean", "Whether to wait for the end.", "false")
    timeout = _query("timeout", "integer", "Has no effect.", "-1")
    workers = [
        _query("min_worker", "integer", "How many workers there are at least.", "1"),
        _query("max_worker", "integer", "How many workers there are at most.", "1"),
        _query("number_gpu", "integer", "Has no effect.", "0"),
        is_synchronous,
        timeout,
    ]
    return {
        "get": _operation(
            "Describe the model.",
            f"{prefix}describeModel",
            path,
            {
                "200": _json("The model, its workers and its queue.", _described_model()),
                "404": _no_such_model(),
                "500": _failed("The server failed."),
            },
        ),
        "put": _operation(
            "Start workers of the model, or let some go.",
            f"{prefix}setAutoScale",
            [*path, *workers],
            {
                "200": _status("There are as many workers as asked for."),
                "202": _status("Workers are starting, or leaving."),
                "210": _status("Some of the workers are not ready."),
                "400": _failed("The numbers contradict each other."),
                "404": _no_such_model(),
                "500": _failed("The server failed, or a worker did not start."),
            },
        ),
        "delete": _operation(
            "Unregister the model.",
            f"{prefix}unregisterModel",
            [*path, is_synchronous, timeout],
            {
                "200": _status("The model is gone."),
                "202": _status("The model is going."),
                "404": _no_such_model(),
                "408": _failed("The model's workers did not end in time."),
                "500": _failed("The server failed."),
            },
        ),
    }


def _described_model() -> Json:
    worker = {
        "id": _type("string", "The worker's number."),
        "startTime": _type("string", "When it was started, by the server's clock."),
        "gpu": _type("boolean", "Whether it computes on a GPU."),
        "status": {
            "type": "string",
            "description": "Whether it has loaded the model.",
            "enum": ["READY", "LOADING", "UNLOADING"],
        },
    }
    metrics = {
        "rejectedRequests": _type("integer", "How many requests were refused."),
        "waitingQueueSize": _type("integer", "How many requests wait."),
        "requests": _type("integer", "How many requests there were."),
    }
    queue = {
        "remainingCapacity": _type("integer", "How many more requests may wait."),
        "pendingRequests": _type("integer", "How many requests wait."),
    }
    properties = {
        "modelName": _type("string", "The model's name."),
        "modelVersion": _type("string", "Its version."),
        "modelUrl": _type("string", "Where its archive came from."),
        "minWorkers": _type("integer", "How many workers there are at least."),
        "maxWorkers": _type("integer", "How many workers there are at most."),
        "batchSize": _type("integer", "How many requests at most make a batch."),
        "maxBatchDelay": _type("integer", "How long a batch is filled, in ms."),
        "status": _type("string", "Never told."),
        "workers": {
            "type": "array",
            "items": _object(worker, ["id", "startTime", "status"]),
            "description": "The workers.",
        },
        "metrics": _object(metrics, metrics),
        "jobQueueStatus": _object(queue, queue),
    }
    optional = ("batchSize", "maxBatchDelay")
    return _object(properties, [name for name in properties if name not in optional])


def _operation(
    description: str, operation_id: str, parameters: list[Json], responses: Json
) -> Json:
    return {
        "description": description,
        "operationId": operation_id,
        "parameters": parameters,
        "responses": responses,
    }


def _model_name(purpose: str) -> Json:
    return _path("model_name", f"Name of the model {purpose}.")


def _model_version(purpose: str) -> Json:
    return _path("model_version", f"Version of the model {purpose}.")


def _path(name: str, description: str) -> Json:
    return {
        "in": "path",
        "name": name,
        "description": description,
        "required": True,
        "schema": {"type": "string"},
    }


def _query(name: str, kind: str, description: str, default: str | None = None) -> Json:
    schema = {"type": kind} if default is None else {"type": kind, "default": default}
    return {
        "in": "query",
        "name": name,
        "description": description,
        "required": False,
        "schema": schema,
    }


def _json(description: str, schema: Json) -> Json:
    return {"description": description, "content": {"application/json": {"schema": schema}}}


def _status(description: str) -> Json:
    properties = {"status": _type("string", "What happened.")}
    return _json(description, _object(properties, properties))


def _failed(description: str) -> Json:
    properties = {
        "code": _type("integer", "Error code."),
        "type": _type("string", "Error type."),
        "message": _type("string", "Error message."),
    }
    return _json(description, _object(properties, properties))


def _no_such_model() -> Json:
    return _failed("There is no such model, or not in this version.")


def _object(properties: Json, required: Sequence[str] | Json) -> Json:
    return {"type": "object", "required": list(required), "properties": properties}


def _type(kind: str, description: str | None = None) -> Json:
    return {"type": kind} if description is None else {"type": kind, "description": description}
