"""Where a handler is imported from; `ts.model_loader` knows TorchServe's rules of finding it."""

import os
import site
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from torchkeep.backend.module_search import forget_shadowed

if TYPE_CHECKING:
    from ts.context import Context

EntryPoint: TypeAlias = "Callable[[Any, Context | None], Any]"

TS_COMPAT = Path(__file__).resolve().parent / "ts-compat"


def expose_ts() -> None:
    """Let this process import `ts`."""
    if str(TS_COMPAT) not in sys.path:
        sys.path.insert(0, str(TS_COMPAT))


def expose_handler_paths(model_dir: Path, handler: str) -> None:
    """Let this process and those that it starts import `ts` and the archive's own modules.

    What was imported before under the name of one of them is forgotten.
    """
    inherited = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    # TorchServe: the server's own PYTHONPATH comes before the model, which is searched where it
    # really lies; beside the link to it is what was installed for a model served in place.
    own = [str(model_dir.resolve())]
    if model_dir.is_symlink():
        own.append(str(model_dir.parent))
    heads = [str(TS_COMPAT)]
    module_path = handler.split(":", 1)[0]
    if "/" in module_path:
        heads.append(str((model_dir.resolve() / module_path).parent))
    heads += [path for path in inherited if path and path not in (*heads, *own)]
    heads += own
    sys.path[:] = heads + [path for path in sys.path if path not in heads]
    os.environ["PYTHONPATH"] = os.pathsep.join(heads)
    forget_shadowed([*heads[1:], *_packages_of_environment(own)])


def _packages_of_environment(homes: list[str]) -> list[str]:
    """Where the packages of a virtual environment are that was made for this model."""
    real = {path: Path(os.path.realpath(path)) for path in (*homes, *site.getsitepackages())}
    return [
        path
        for path in site.getsitepackages()
        if any(real[path].is_relative_to(real[home]) for home in homes)
    ]


def load_entry_point(handler: str, envelope: str, context: "Context") -> EntryPoint:
    """Import the handler, initialise it once, and return what answers a batch."""
    from ts import model_loader

    return model_loader.load_entry_point(handler, envelope, context)
