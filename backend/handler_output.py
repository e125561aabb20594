"""What a handler hands back, checked and turned into what a reply can carry.

Bodies that no client could read fail the batch (`UnusableOutput`); statuses and headers
that no reply can hold end the worker (`ProtocolViolation`), both as in TorchServe.
"""

import io
import json
import logging
import math
import operator
import re
import sys
from typing import TYPE_CHECKING, Any

from torchkeep.runtime.errors import ServingError
from torchkeep.runtime.messages import Metric, Prediction

if TYPE_CHECKING:
    from ts.context import RequestProcessor
    from ts.metrics.caching_metric import Emission

log = logging.getLogger(__name__)

_HEADER_NAME = re.compile(r"[^\x00-\x20,:;=\x7f-\U0010ffff]+")
_NO_HEADER_VALUE = re.compile(r"[\x00\n\v\f\r]")


class ProtocolViolation(ServingError):
    """The handler set a status or header that no reply can carry. The worker is over."""


class UnusableOutput(ServingError):
    """The handler returned what answers no batch. The message is TorchServe's."""


def encode_output(output: Any, count: int) -> list[bytes | bytearray]:
    """The bodies of `count` answers."""
    if not isinstance(output, list):
        raise UnusableOutput("Invalid model predict output")
    if len(output) != count:
        raise UnusableOutput("number of batch response mismatched")
    return [_encode(element) for element in output]


def to_prediction(
    request_id: str, body: bytes | bytearray, processor: "RequestProcessor"
) -> Prediction:
    """The answer to one request, with the status and headers that the handler set for it."""
    headers: dict[str, tuple[str, str]] = {}
    for given_name, given_value in processor.get_response_headers().items():
        name, value = checked_text(given_name), checked_text(given_value)
        if not _HEADER_NAME.fullmatch(name):
            raise ProtocolViolation("a response header has an impossible name")
        if _NO_HEADER_VALUE.search(value):
            raise ProtocolViolation(f"the response header {name} holds a line break")
        # Another spelling of a name replaces the one set before.
        headers[name.lower()] = (name, value)
    reason = processor.get_response_status_phrase()
    reason = "" if reason is None else checked_text(reason)
    if _NO_HEADER_VALUE.search(reason):
        raise ProtocolViolation("the reason phrase holds a line break")
    status = checked_status(processor.get_response_status_code())
    return Prediction(request_id, body, status, reason, dict(headers.values()))


def checked_status(code: Any) -> int:
    """The code as a plain integer; any 32-bit number is a status to TorchServe."""
    try:
        number = operator.index(code)
    except TypeError as error:
        raise ProtocolViolation(f"a {type(code).__name__} is no status code") from error
    if not -(1 << 31) <= number < 1 << 31:
        raise ProtocolViolation("a status code does not fit 32 bits")
    return number


def checked_text(value: Any) -> str:
    """The value as a plain string, if UTF-8 can hold it."""
    if type(value) is str and value.isascii():
        return value
    try:
        return bytes(value.encode("utf-8")).decode("utf-8")
    except (AttributeError, UnicodeError) as error:
        raise ProtocolViolation(f"a {type(value).__name__} cannot be sent as text") from error


def to_metric(emission: "Emission") -> Metric | None:
    """None for a value that is no finite number, as TorchServe cannot parse those either."""
    try:
        value = float(emission.value)
    except (TypeError, ValueError, OverflowError):
        value = math.nan
    if not math.isfinite(value):
        log.error("the value of metric %s is no finite number", emission.name)
        return None
    try:
        dimensions = {
            checked_text(name): checked_text(text) for name, text in emission.dimensions.items()
        }
        name, unit, request_id = map(
            checked_text, (emission.name, emission.unit, emission.request_id)
        )
    except ProtocolViolation:
        log.error("a metric has a name or label that cannot be sent")
        return None
    return Metric(name, value, unit, emission.metric_type.value, dimensions, request_id)


def _encode(element: Any) -> bytes | bytearray:
    # A tensor cannot exist before torch is imported, so a plain worker need not import it. An
    # archive may hold a torch.py of its own, which has none.
    torch: Any = sys.modules.get("torch")
    tensor = getattr(torch, "Tensor", None)
    try:
        match element:
            case bytes() | bytearray():
                return element
            case str():
                return element.encode("utf-8")
            case _ if tensor is not None and isinstance(element, tensor):
                is_view = element.layout is torch.strided and (
                    element.untyped_storage().nbytes() > element.nbytes
                )
                buffer = io.BytesIO()
                # torch writes all the memory behind a view: the answers to other clients.
                torch.save(element.detach().clone() if is_view else element, buffer)
                return buffer.getvalue()
            case _:
                return json.dumps(element, indent=2).encode("utf-8")
    except (TypeError, ValueError, RecursionError) as error:
        raise UnusableOutput("Unsupported model output data type.") from error
