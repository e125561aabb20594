"""Where a handler is imported from; `ts.model_loader` knows TorchServe's rules of finding it."""

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    from ts.context import Context

EntryPoint: TypeAlias = "Callable[[Any, Context | None], Any]"

TS_COMPAT = Path(__file__).resolve().parent / "ts-compat"


def expose_handler_paths(model_dir: Path, handler: str) -> None:
    """Let this process and those that it starts import `ts` and the archive's own modules."""
    module_path = handler.split(":", 1)[0]
    heads = [str(TS_COMPAT), str(model_dir)]
    if "/" in module_path:
        heads.insert(1, str((model_dir / module_path).parent))
    sys.path[:] = heads + [path for path in sys.path if path not in heads]
    inherited = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    tail = [path for path in inherited if path and path not in heads]
    os.environ["PYTHONPATH"] = os.pathsep.join(heads + tail)


def load_entry_point(handler: str, envelope: str, context: "Context") -> EntryPoint:
    """Import the handler, initialise it once, and return what answers a batch."""
    from ts import model_loader

    return model_loader.load_entry_point(handler, envelope, context)
