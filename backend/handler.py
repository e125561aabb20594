"""TorchServe's rules for finding a handler's entry point: "file:function", class, built-in name.

A handler is named in the manifest or at registration. What it names is user code: importing
it, creating its class and calling its initialisation may raise anything.
"""

import importlib
import inspect
import os
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from types import ModuleType
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
    function = handler.partition(":")[2]
    model_dir = Path(context.system_properties["model_dir"])
    module = _import_handler(handler, model_dir)
    # A function wins over any class beside it.
    entry_point = getattr(module, function or "handle", None)
    if entry_point is not None:
        outcome = entry_point(None, context)
        if inspect.iscoroutine(outcome):
            outcome.close()  # TorchServe: of an async handler, a call without data does nothing
    else:
        instance = _own_class(module)()
        # Read before `initialize`, so a replacement of `self.handle` made there has no effect.
        entry_point = instance.handle
        instance.initialize(context)
    return _wrap(entry_point, envelope) if envelope else entry_point


def _import_handler(handler: str, model_dir: Path) -> ModuleType:
    module_path = Path(handler.split(":", 1)[0].removesuffix(".py"))
    _forget_namesake(module_path.name, (model_dir / module_path.parent, model_dir))
    try:
        return importlib.import_module(module_path.name)
    except ImportError as error:
        builtin = f"ts.torch_handler.{handler}"
        try:
            return importlib.import_module(builtin)
        except ModuleNotFoundError as missing:
            # No built-in handler of this name: the user's own import is what went wrong.
            if f"{builtin}.".startswith(f"{missing.name}."):
                raise error from None
            raise


def _forget_namesake(name: str, directories: Iterable[Path]) -> None:
    """Let the archive's file win over a module that this process imported under its name."""
    loaded = sys.modules.get(name)
    own = [str(directory / f"{name}.py") for directory in directories]
    if getattr(loaded, "__file__", None) not in own and any(map(os.path.isfile, own)):
        sys.modules.pop(name, None)


def _own_class(module: ModuleType) -> type[Any]:
    from ts.utils.util import list_classes_from_module

    classes = list_classes_from_module(module)
    if len(classes) != 1:
        names = ", ".join(one.__name__ for one in classes) or "none"
        raise ValueError(f"Expected only one class in custom service code or a function: {names}")
    return classes[0]


def _wrap(entry_point: EntryPoint, envelope: str) -> EntryPoint:
    from ts.utils.util import list_classes_from_module

    module = importlib.import_module(f"ts.torch_handler.request_envelope.{envelope}")
    wrapped: EntryPoint = list_classes_from_module(module)[0](entry_point).handle
    return wrapped
