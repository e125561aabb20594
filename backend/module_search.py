"""Which modules a handler's imports find: what this process runs on and what a model brings
do not meet.

TorchServe's worker starts with the model's directories on its path, so what the archive, its
installed requirements or its virtual environment hold wins over what is installed for the
server. Here the process has imported libraries of its own before it knows the model: it keeps
them, and forgets their names where the model has modules of the same name. Then both are there.
"""

import contextlib
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from importlib.machinery import BuiltinImporter, FrozenImporter, PathFinder

# Modules of these names in an archive are never seen: they are the server's own.
RESERVED = frozenset({"__main__", "torchkeep", "ts"})


@contextlib.contextmanager
def searched_first(directories: Sequence[str]) -> Iterator[None]:
    """Import from these directories what they hold, and everything else as before."""
    before = sys.path[:]
    sys.path[:0] = directories
    try:
        yield
    finally:
        sys.path[:] = before


def forget_shadowed(directories: Iterable[str]) -> None:
    """Forget each imported module in whose place `sys.path` now finds one in these directories.

    Whoever imports it next gets that one; whoever holds the other keeps it.
    """
    loaded = {name for name in sys.modules if "." not in name} - RESERVED
    found = {name for directory in directories for name in module_names(directory)} & loaded
    shadowed = {name for name in found if _is_elsewhere_now(name)}
    for name in [name for name in sys.modules if name.partition(".")[0] in shadowed]:
        del sys.modules[name]


def module_names(directory: str) -> set[str]:
    """What the modules in a directory may be called, and some names that no module has."""
    try:
        return {entry.partition(".")[0] for entry in os.listdir(directory)}
    except OSError:
        return set()  # as it is for an import


def _is_elsewhere_now(name: str) -> bool:
    if BuiltinImporter.find_spec(name) or FrozenImporter.find_spec(name):
        return False  # these come before any path
    spec = PathFinder.find_spec(name)
    origin = getattr(getattr(sys.modules[name], "__spec__", None), "origin", None)
    # A directory without `__init__.py` has no origin, and gives way to everything else.
    return spec is not None and spec.origin is not None and spec.origin != origin
