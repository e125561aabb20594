"""Streamed answers: what handlers call while a batch is still being worked on."""

import os
from collections.abc import Mapping
from typing import Any


def send_intermediate_predict_response(
    ret: Any, req_id_map: Mapping[int, str], message: str, code: int, context: Any = None
) -> None:
    """Send `ret[index]` as the next piece of the answer to each request of `req_id_map`.

    `req_id_map` is `context.request_ids`, or a part of it. Of the processes that torchrun
    starts for one worker, only rank 0 sends. A code other than 200 answers with an error.
    """
    if int(os.environ.get("LOCAL_RANK") or 0) == 0:
        context.cl_socket.send_pieces(ret, req_id_map, message, code)
