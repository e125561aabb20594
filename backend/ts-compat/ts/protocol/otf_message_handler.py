"""The old home of `send_intermediate_predict_response`."""

import warnings
from collections.abc import Mapping
from typing import Any

from ts.handler_utils import utils


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
