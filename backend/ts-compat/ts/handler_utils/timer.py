"""Timing of handler methods, for models that ask for it."""

import functools
import time
from collections.abc import Callable
from typing import Any, TypeVar, cast

_Method = TypeVar("_Method", bound=Callable[..., Any])


def timed(method: _Method) -> _Method:
    """Record `ts_handler_{method}` in ms when the model's configuration has `handler.profile`."""

    @functools.wraps(method)
    def wrapper(self: Any, *args: Any, **kwargs: Any) -> Any:
        started = time.perf_counter()
        result = method(self, *args, **kwargs)
        if _is_profiled(self.context):
            elapsed_ms = (time.perf_counter() - started) * 1000
            self.context.metrics.add_time(f"ts_handler_{method.__name__}", elapsed_ms)
        return result

    return cast("_Method", wrapper)


def _is_profiled(context: Any) -> bool:
    config = getattr(context, "model_yaml_config", None) or {}
    section = config.get("handler")
    return isinstance(section, dict) and bool(section.get("profile"))
