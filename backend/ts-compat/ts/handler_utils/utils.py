"""Streamed answers, and classes that a configuration names."""

import importlib
import os
from collections.abc import Mapping
from typing import Any


def send_intermediate_predict_response(
    ret: Any, req_id_map: Mapping[int, str], message: str, code: int, context: Any
) -> None:
    """Send `ret[index]` as the next piece of the answer to each request of `req_id_map`.

    `req_id_map` is `context.request_ids`, or a part of it. Of the processes that torchrun
    starts for one worker, only rank 0 sends. A code other than 200 answers with an error.
    """
    if int(os.environ.get("LOCAL_RANK") or 0) == 0:
        context.cl_socket.send_pieces(ret, req_id_map, message, code)


def import_class(class_name: str, module_prefix: str | None = None) -> Any:
    """The class `pkg.module.Class`, or `Class` of the module `module_prefix`.

    ImportError when the name is empty, names no module, or is not found in it.
    """
    if not class_name:
        raise ImportError("class name is not defined: expected package.module.Class")
    module_name, _, name = class_name.rpartition(".")
    module_name = module_name or module_prefix or ""
    if not module_name:
        raise ImportError(f"module name is not defined: expected package.module.{name}")
    found = getattr(importlib.import_module(module_name), name, None)
    if found is None:
        raise ImportError(f"class:{name} not found in module:{module_name}.")
    return found
