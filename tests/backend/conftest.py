"""Makes `ts` importable, as it is in a worker, and undoes what loading a handler changes."""

import os
import sys
from collections.abc import Iterator

import pytest

from torchkeep.backend.handler import TS_COMPAT

sys.path.insert(0, str(TS_COMPAT))


@pytest.fixture(autouse=True)
def _restored_process(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A handler is loaded into this process: put its paths, directory and modules back."""
    cwd, path = os.getcwd(), sys.path[:]
    modules = set(sys.modules)
    monkeypatch.setenv("PYTHONPATH", os.environ.get("PYTHONPATH", ""))
    yield
    os.chdir(cwd)
    sys.path[:] = path
    for name in set(sys.modules) - modules:
        file = getattr(sys.modules[name], "__file__", None) or ""
        if os.path.join("pytest-of-", "")[:-1] in file:
            del sys.modules[name]
