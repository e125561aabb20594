"""The import rules of the map in `runtime/__init__.py`: a folder is a process."""

import ast
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
FOLDERS = ("runtime", "frontend", "backend", "modelstore", "client", "roof")
TS_COMPAT = ROOT / "backend" / "ts-compat"
DOOR = ROOT / "runtime" / "__main__.py"  # the one way into the roof

# Folder -> what else of ours, and whose libraries, its process may import.
OURS = {
    "runtime": set[str](),
    "frontend": {"runtime", "modelstore"},
    "backend": {"runtime"},
    "modelstore": set[str](),
    "client": {"runtime"},
    "roof": {"runtime", "frontend", "modelstore", "client"},
}
LIBRARIES = {
    "runtime": {"cbor2", "cryptography", "msgpack", "yaml"},
    "frontend": {
        "httptools",
        "msgpack",
        "python_multipart",
        "starlette",
        "uvicorn",
        "yaml",
    },
    "backend": {
        "intel_extension_for_pytorch",
        "msgpack",
        "numpy",
        "torch",
        "torchvision",
        "ts",
        "yaml",
    },
    "modelstore": {"botocore", "cryptography", "yaml"},
    "client": {"cbor2", "cryptography", "dcap_qvl", "httpx", "yaml"},
    "roof": {"cryptography", "starlette", "uvloop"},
}


DISTRIBUTIONS = {"yaml": "pyyaml"}  # of libraries that are called otherwise


def modules_of(folder: str) -> Iterator[Path]:
    for path in sorted((ROOT / folder).rglob("*.py")):
        if TS_COMPAT not in path.parents:
            yield path


def imports_of(source: str) -> Iterator[tuple[int, str]]:
    """Line and dotted name of everything imported, `from a import b` being `a.b`."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            prefix = "." * node.level + (node.module or "")
            yield from ((node.lineno, f"{prefix}.{alias.name}") for alias in node.names)


def violation(folder: str, name: str) -> str | None:
    """Why a module of this folder must not import that name; None if it may."""
    first, *rest = name.split(".")
    if not first:
        return "imports are absolute"
    if first in FOLDERS:
        return f"bare, works only from the repository's root: say torchkeep.{name}"
    if first == "torchkeep":
        if not rest or rest[0] not in FOLDERS:
            return "no such folder"
        if rest[0] != folder and rest[0] not in OURS[folder]:
            return f"{folder} may not import {rest[0]}"
        if rest[1:2] == ["__main__"]:
            return "nobody imports a __main__"
        return None
    if first in sys.stdlib_module_names or first in LIBRARIES[folder]:
        return None
    return f"{folder} may not import {first}"


@pytest.mark.parametrize("folder", FOLDERS)
def test_folder_imports_only_what_its_process_may(folder: str) -> None:
    found = [
        f"{path.relative_to(ROOT)}:{line}: {name}: {reason}"
        for path in modules_of(folder)
        if path != DOOR
        for line, name in imports_of(path.read_text())
        if (reason := violation(folder, name))
    ]
    assert found == []


def test_ts_imports_nothing_of_ours() -> None:
    found = [
        f"{path.relative_to(ROOT)}:{line}: {name}"
        for path in sorted((TS_COMPAT / "ts").rglob("*.py"))
        for line, name in imports_of(path.read_text())
        if name.split(".")[0] in {"torchkeep", *FOLDERS, "starlette", "uvicorn"}
    ]
    assert found == []


@pytest.mark.parametrize("package", ["model_archiver", "workflow_archiver"])
def test_the_archivers_import_the_modelstore_and_nothing_else(package: str) -> None:
    found = [
        f"{path.relative_to(ROOT)}:{line}: {name}"
        for path in sorted((TS_COMPAT / package).rglob("*.py"))
        for line, name in imports_of(path.read_text())
        if name.split(".")[0] not in {package, *sys.stdlib_module_names}
        and not name.startswith("torchkeep.modelstore.")
    ]
    assert found == []


@pytest.mark.parametrize(
    ("folder", "source"),
    [
        ("frontend", "import torch"),
        ("frontend", "def later():\n    from torch import nn"),
        ("frontend", "from torchkeep.backend import worker"),
        ("frontend", "from torchkeep import backend"),
        ("frontend", "from torchkeep.runtime import __main__"),
        ("frontend", "from . import jobs"),
        ("frontend", "import runtime.wire"),
        ("backend", "import torchkeep.frontend.jobs"),
        ("runtime", "from torchkeep.modelstore.store import ModelStore"),
        ("modelstore", "from torchkeep.runtime.errors import ServingError"),
        ("backend", "import starlette"),
        ("client", "import torch"),
        ("client", "from torchkeep.frontend.app import inference_app"),
        ("client", "from torchkeep.modelstore.keys import key_bytes"),
        ("frontend", "from torchkeep.client import Client"),
        ("runtime", "import httpx"),
        ("client", "from standins.key_services import Broker"),
        ("runtime", "from torchkeep.roof.plan import Plan"),
        ("roof", "from torchkeep.backend import worker"),
    ],
)
def test_planted_violation_is_caught(folder: str, source: str) -> None:
    assert any(violation(folder, name) for _, name in imports_of(source))


@pytest.mark.parametrize(
    ("folder", "source"),
    [
        ("frontend", "from torchkeep.runtime.messages import Load"),
        ("backend", "import torch"),
        ("modelstore", "import yaml"),
        ("client", "from torchkeep.runtime.claims import parse_claims"),
        ("roof", "from torchkeep.client import commands"),
    ],
)
def test_allowed_import_is_not_caught(folder: str, source: str) -> None:
    assert not any(violation(folder, name) for _, name in imports_of(source))


def test_wheel_holds_every_package_of_the_tree() -> None:
    # A package missing from this list works in an editable install and is silently
    # absent from the wheel.
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    packages = project["tool"]["setuptools"]["packages"]
    found = [
        path.parent.relative_to(ROOT)
        for folder in FOLDERS
        for path in (ROOT / folder).rglob("__init__.py")
        if TS_COMPAT not in path.parents
    ]
    assert sorted(packages) == sorted(".".join(("torchkeep", *package.parts)) for package in found)


@pytest.mark.parametrize("folder", LIBRARIES)
def test_whoever_installs_the_package_gets_the_libraries_that_a_folder_imports(folder: str) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    required = [*project["dependencies"]]
    for name in ("torch", "ipex", "client", "s3"):
        required += extras[name]
    known = {re.split(r"[^\w-]", one)[0].replace("-", "_") for one in required}
    assert {DISTRIBUTIONS.get(one, one) for one in LIBRARIES[folder] - {"ts"}} <= known


@pytest.mark.parametrize("folder", FOLDERS)
def test_package_marker_holds_a_docstring_and_no_code(folder: str) -> None:
    docstring, *rest = ast.parse((ROOT / folder / "__init__.py").read_text()).body
    assert ast.get_docstring(ast.Module([docstring], [])) is not None
    if folder == "client":  # the one that users import: it names what is for them
        rest = [node for node in rest if not _only_names(node)]
    assert rest == []


def _only_names(node: ast.stmt) -> bool:
    return isinstance(node, ast.ImportFrom) or ast.unparse(node).startswith("__all__ = ")


@pytest.mark.parametrize("folder", ["runtime", "frontend", "modelstore", "client", "roof"])
def test_folder_imports_no_torch_in_a_fresh_interpreter(folder: str) -> None:
    names = [
        f"torchkeep.{folder}.{path.stem}"
        for path in modules_of(folder)
        if path.stem not in {"__init__", "__main__"}
    ]
    program = (
        "import importlib, sys\n"
        f"for name in {names!r}: importlib.import_module(name)\n"
        "sys.exit(', '.join({'torch', 'ts', 'numpy'} & set(sys.modules)) or 0)\n"
    )
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
