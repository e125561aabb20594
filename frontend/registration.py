"""What a client may say when it registers a model, in the query or as JSON."""

import json
import reprlib
from typing import Any

from torchkeep.frontend.call import JAVA_INTEGER, Call
from torchkeep.frontend.errors import BadRequest, JsonSyntaxError, NoRequestBody
from torchkeep.frontend.model_spec import (
    UNSET_BATCH_DELAY,
    UNSET_BATCH_SIZE,
    UNSET_TIMEOUT,
    Registration,
)

# TorchServe: a JSON body without the key gets this sentinel, and uses it as a delay
MISSING_BATCH_DELAY = -10000
EXPECTED = 'Expected an object with a url, such as {"url": "model.mar"}.'


async def read_registration(call: Call) -> tuple[Registration, bool]:
    """The registration, and whether the client wants to wait for the workers."""
    mime_type = call.header(b"content-type").strip().partition(";")[0]
    if mime_type.lower() == "application/json":
        return _from_json(await call.body())
    return _from_query(call)


def _from_query(call: Call) -> tuple[Registration, bool]:
    query = call.query
    registration = Registration(
        url=_required(query.get("url")),
        model_name=query.get("model_name"),
        handler=query.get("handler"),
        runtime=query.get("runtime"),
        batch_size=call.query_integer("batch_size", UNSET_BATCH_SIZE),
        max_batch_delay=call.query_integer("max_batch_delay", UNSET_BATCH_DELAY),
        initial_workers=call.query_optional_integer("initial_workers"),
        response_timeout=call.query_integer("response_timeout", UNSET_TIMEOUT),
        startup_timeout=call.query_integer("startup_timeout", UNSET_TIMEOUT),
        s3_sse_kms=call.query_flag("s3_sse_kms", default=False),
    )
    return registration, call.query_flag("synchronous", default=True)


def _from_json(body: bytes) -> tuple[Registration, bool]:
    if not body.strip():
        raise NoRequestBody(f"The request has no body. {EXPECTED}")
    try:
        # Encoded once more: JSON can spell half a character, which no file name can hold.
        fields = json.loads(body)
        json.dumps(fields, ensure_ascii=False).encode()
    except (ValueError, RecursionError) as error:
        # Others speak of Python.
        is_helpful = isinstance(error, json.JSONDecodeError | UnicodeError)
        reason = f": {error}" if is_helpful else ", or nested too deep for any use"
        raise JsonSyntaxError(f"The body is not JSON{reason}. {EXPECTED}") from error
    if fields is None:
        raise NoRequestBody(f"The request has no body. {EXPECTED}")
    if not isinstance(fields, dict):
        raise JsonSyntaxError(f"The body is not a JSON object. {EXPECTED}")
    registration = Registration(
        url=_required(_text(fields, "url")),
        model_name=_text(fields, "model_name"),
        handler=_text(fields, "handler"),
        runtime=_text(fields, "runtime"),
        batch_size=_integer(fields, "batch_size", UNSET_BATCH_SIZE),
        max_batch_delay=_integer(fields, "max_batch_delay", MISSING_BATCH_DELAY),
        initial_workers=_integer(fields, "initial_workers", None),
        response_timeout=_integer(fields, "response_timeout", UNSET_TIMEOUT),
        startup_timeout=_integer(fields, "startup_timeout", UNSET_TIMEOUT),
        s3_sse_kms=_flag(fields, "s3_sse_kms", default=False),
    )
    return registration, _flag(fields, "synchronous", default=True)


def _required(url: str | None) -> str:
    if url is None:
        raise BadRequest("Parameter url is required.")
    return url


def _text(fields: dict[str, Any], name: str) -> str | None:
    """TorchServe: a number or a boolean will do for a text."""
    match fields.get(name):
        case None:
            return None
        case bool() as flag:
            return str(flag).lower()
        case str() | int() | float() as value:
            return str(value)
    raise JsonSyntaxError(f"{name} is not a string, as it has to be.")


def _flag(fields: dict[str, Any], name: str, default: bool) -> bool:
    """TorchServe: any text but true is false; a number is a syntax error."""
    value = fields.get(name, default)
    match value:
        case None:
            return default
        case bool():
            return value
        case str():
            return value.lower() == "true"
    raise JsonSyntaxError(f"{name} is not a boolean: expected true or false.")


def _integer(fields: dict[str, Any], name: str, default: int | None) -> int | None:
    """TorchServe: a number given as text is a number; any other text is a syntax error."""
    value = fields.get(name)
    if value is None:
        return default
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if not isinstance(value, bool) and JAVA_INTEGER.fullmatch(str(value)):
        number = int(value)
        if -(2**31) <= number < 2**31:
            return number
    shown = reprlib.repr(value)
    raise JsonSyntaxError(f"{name} is not an integer, nor one of 32 bits: {shown}.")
