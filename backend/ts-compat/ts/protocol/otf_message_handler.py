"""TorchServe's replies as bytes, for handlers and tests that ask for them.

Torchkeep's workers do not speak this protocol. Integers are of 32 bits, big-endian; texts and
bodies follow their length; -1 ends a list.
"""

import io
import json
import logging
import os
import struct
import sys
import warnings
from collections.abc import Mapping
from typing import Any

from ts.context import Context
from ts.handler_utils import utils

_log = logging.getLogger(__name__)

_END = struct.pack(">i", -1)
_STREAM_NEXT = "ts_stream_next"


def send_intermediate_predict_response(
    ret: Any, req_id_map: Mapping[int, str], message: str, code: int, context: Any = None
) -> None:
    """Deprecated: import it from `ts.handler_utils.utils`."""
    warnings.warn(
        "import send_intermediate_predict_response from ts.handler_utils.utils",
        DeprecationWarning,
        stacklevel=2,
    )
    utils.send_intermediate_predict_response(ret, req_id_map, message, code, context)


def create_predict_response(
    ret: Any,
    req_id_map: Mapping[int, str],
    message: str,
    code: int,
    context: Context | None = None,
    ts_stream_next: bool = False,
) -> bytearray | None:
    """The reply to a batch: `ret[index]` for each request, or `error` where `ret` is None.

    None in the processes of torchrun that are not rank 0. With a context each request has the
    status and the headers that the handler set. An output that no reply can hold fails all.
    """
    if not _is_first_rank():
        return None
    bodies: dict[int, bytes] = {}
    for index in req_id_map:
        try:
            bodies[index] = b"error" if ret is None else _encoded(ret[index])
        except (TypeError, ValueError, OverflowError):
            _log.warning("Unable to serialize model output.", exc_info=True)
            return create_predict_response(
                None, req_id_map, "Unsupported model output data type.", 503
            )
    reply = bytearray(_integer(code) + _text(message))
    for index, request_id in req_id_map.items():
        reply += _text(request_id)
        reply += _head(index, code, context, ts_stream_next)
        reply += _bytes(bodies[index])
    return reply + _END


def create_load_model_response(code: int, message: str) -> bytearray:
    """The reply to the command that loads a model."""
    return bytearray(_integer(code) + _text(message) + _END)


def _head(index: int, code: int, context: Context | None, streams: bool) -> bytes:
    """Content type, status, reason and headers of one request's answer."""
    if context is None:
        return _text("") + _integer(code) + _text("") + _integer(0)
    headers = context.get_response_headers(index)
    # TorchServe: the header stays on the request, and becomes false with the last piece.
    if streams or _STREAM_NEXT in headers:
        context.set_response_header(index, _STREAM_NEXT, str(streams).lower())
    status, phrase = context.get_response_status(index)
    head = _text(context.get_response_content_type(index) or "")
    head += _integer(status) + _text(phrase or "")
    head += _integer(len(headers))
    return head + b"".join(_text(key) + _text(value) for key, value in headers.items())


def _encoded(output: Any) -> bytes:
    if isinstance(output, bytes | bytearray):
        return bytes(output)
    if isinstance(output, str):
        return output.encode()
    torch: Any = sys.modules.get("torch")  # who has a tensor has imported it
    if torch is not None and isinstance(output, torch.Tensor):
        buffer = io.BytesIO()
        torch.save(output, buffer)
        return buffer.getvalue()
    return json.dumps(output, indent=2).encode()


def _is_first_rank() -> bool:
    return int(os.environ.get("LOCAL_RANK") or 0) == 0


def _integer(value: int) -> bytes:
    return struct.pack(">i", value)


def _text(value: str) -> bytes:
    return _bytes(value.encode())


def _bytes(value: bytes) -> bytes:
    return _integer(len(value)) + value
