"""Which zygote stage a worker is forked from: a guess from the archive, without running it.

A guess of "plain" for a handler that imports torch after all costs the worker the time of
that import, nothing else; so does "torch" for one that never needs it. The archive may be
hostile, so its source is only parsed, and only so much of it.
"""

import ast
import re
from pathlib import Path

MAX_FILES = 200
MAX_SOURCE_BYTES = 1 << 18  # of all files together: parsing takes some hundred times as much
MAX_PARTS = 16  # of a dotted name

# Built-in handlers load a model, so all of them need torch.
_BUILTIN_STAGES = {
    "base_handler": "torch",
    "vision_handler": "torch",
    "image_classifier": "torch",
}

# Packages that import torch themselves.
_TORCH_PACKAGES = frozenset(
    {
        "accelerate",
        "captum",
        "diffusers",
        "intel_extension_for_pytorch",
        "pytorch_lightning",
        "sentence_transformers",
        "timm",
        "torch",
        "torchaudio",
        "torchtext",
        "torchvision",
        "transformers",
        "ultralytics",
    }
)

# Python's parser needs quadratic time for a dotted name: one of 200 KB takes half a minute.
_ENDLESS_NAME = re.compile(rb"(?:\.[\s\\]*[\w\x80-\xff]+[\s\\]*){64}")


def required_stage(handler: str, model_dir: Path) -> str:
    """The earliest stage that has what the handler imports: "plain" or "torch"."""
    path = handler.split(":", 1)[0].removesuffix(".py")
    name = path.rsplit("/", 1)[-1]
    roots = [model_dir, (model_dir / path).parent]
    if not any(_module_files(root, [name]) for root in roots):
        return _BUILTIN_STAGES.get(handler, "plain")
    return "torch" if _ImportScan(roots).reaches_torch(name) else "plain"


class _ImportScan:
    """Follows imports from module to module, as far as the archive itself holds them."""

    def __init__(self, roots: list[Path]) -> None:
        self._roots = roots
        self._seen: set[Path] = set()
        self._bytes_left = MAX_SOURCE_BYTES

    def reaches_torch(self, module: str) -> bool:
        pending = [module]
        known = set(pending)
        while pending:
            parts = pending.pop().split(".")[:MAX_PARTS]
            files = [file for root in self._roots for file in _module_files(root, parts)]
            if not files and (parts[0] in _TORCH_PACKAGES or parts[:2] == ["ts", "torch_handler"]):
                return True
            for file, package in files:
                if file not in self._seen and len(self._seen) < MAX_FILES:
                    self._seen.add(file)
                    names = _imported_names(self._read(file), package) - known
                    known |= names
                    pending += names
        return False

    def _read(self, file: Path) -> bytes:
        try:
            size = file.stat().st_size
            if size > self._bytes_left:
                return b""
            self._bytes_left -= size
            return file.read_bytes()
        except OSError:
            return b""


def _module_files(root: Path, parts: list[str]) -> list[tuple[Path, list[str]]]:
    """The files that importing `a.b` would run, each with the package it belongs to."""
    files = []
    for depth, part in enumerate(parts):
        directory = root.joinpath(*parts[:depth])
        files.append((directory / f"{part}.py", parts[:depth]))
        files.append((directory / part / "__init__.py", parts[: depth + 1]))
    try:
        return [(file, package) for file, package in files if file.is_file()]
    except (OSError, ValueError):
        return []


def _imported_names(source: bytes, package: list[str]) -> set[str]:
    """Dotted names that a module of this package imports anywhere; none when it does not parse."""
    if _ENDLESS_NAME.search(source):
        return set()
    try:
        tree = ast.parse(source)
    # A hostile file can exhaust the parser's stack: it is then simply not followed.
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return set()
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package[: max(0, len(package) - node.level + 1)] if node.level else []
            source_name = ".".join([*above, *filter(None, [node.module])])
            # `from a import b` may name a module a.b as well as a member of a.
            names.update(filter(None, [source_name]))
            names.update(f"{source_name}.{a.name}".lstrip(".") for a in node.names)
    return names
