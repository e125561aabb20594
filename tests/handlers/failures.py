"""Module-level handler: url_path names the way to fail."""

import os
import signal
import sys
import time

from ts.service import PredictionException


def raise_value_error(rows, context):
    raise ValueError("a secret of the handler")


def raise_memory_error(rows, context):
    raise MemoryError("too much")


def raise_cuda(rows, context):
    raise RuntimeError("CUDA out of memory")


def raise_cuda_lower_case(rows, context):
    raise RuntimeError("cuda out of memory")


def raise_keyboard_interrupt(rows, context):
    raise KeyboardInterrupt


def set_status_and_raise(rows, context):
    context.set_response_status(418, "teapot", 0)
    context.set_response_header(0, "x-lost", "yes")
    raise ValueError("after the status")


def int_header(rows, context):
    context.set_response_header(0, "x-number", 1)
    return ["never seen"]


def newline_header(rows, context):
    context.set_response_header(0, "x-lines", "a\r\nx-injected: b")
    return ["never seen"]


def text_status(rows, context):
    context.set_response_status("200", "OK", 0)
    return ["never seen"]


def never(rows, context):
    while True:
        time.sleep(3600)


WAYS = {
    "value-error": raise_value_error,
    "memory-error": raise_memory_error,
    "cuda": raise_cuda,
    "cuda-lower-case": raise_cuda_lower_case,
    "status-then-error": set_status_and_raise,
    "too-long": lambda rows, context: ["one"] * (len(rows) + 1),
    "too-short": lambda rows, context: [],
    "none": lambda rows, context: None,
    "dict": lambda rows, context: {"not": "a list"},
    "str": lambda rows, context: "text",
    "tuple": lambda rows, context: tuple("t" for _ in rows),
    "object": lambda rows, context: [object() for _ in rows],
    "set": lambda rows, context: [{1, 2} for _ in rows],
    "int-header": int_header,
    "newline-header": newline_header,
    "text-status": text_status,
    "exit": lambda rows, context: sys.exit(0),
    "exit-3": lambda rows, context: sys.exit(3),
    "os-exit": lambda rows, context: os._exit(1),
    "interrupt": raise_keyboard_interrupt,
    "sigkill": lambda rows, context: os.kill(os.getpid(), signal.SIGKILL),
    "never": never,
    "fine": lambda rows, context: ["fine" for _ in rows],
}


def handle(data, context):
    if data is None:
        return None
    way = context.get_request_header(0, "url_path")
    if way.startswith("prediction-exception/"):
        code = way.rpartition("/")[2]
        raise PredictionException("said by the handler", int(code))
    if way == "prediction-exception":
        raise PredictionException("no code given")
    if way == "prediction-exception-cuda":
        raise PredictionException("CUDA is busy", 429)
    return WAYS[way](data, context)
