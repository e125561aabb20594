"""Which zygote stage a worker is forked from: a guess from the archive, without running it.

A guess of "plain" for a handler that imports torch after all costs the worker the time of
that import, nothing else; so does "torch" for one that never needs it. The archive may be
hostile, so its source is only parsed, and only so much of it.
"""

import ast
import re
import sys
from dataclasses import dataclass
from pathlib import Path

from torchkeep.backend.module_search import module_names

MAX_FILES = 200
MAX_SOURCE_BYTES = 1 << 18  # of all files together: parsing takes some hundred times as much
MAX_PARTS = 16  # of a dotted name

# Built-in handlers load a model, so all of them need torch.
_BUILTIN_HANDLERS = frozenset(
    {
        "base_handler",
        "densenet_handler",
        "image_classifier",
        "image_segmenter",
        "object_detector",
        "text_classifier",
        "vision_handler",
    }
)

# Packages that import torch themselves.
_TORCH_PACKAGES = frozenset(
    {
        "accelerate",
        "captum",
        "diffusers",
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


@dataclass(frozen=True, slots=True)
class Needs:
    """What a handler needs of the process that its worker is forked from."""

    stage: str  # the earliest that has what the handler imports: "plain", "torch" or "ipex"
    can_share: bool  # its `initialize` is BaseHandler's, so forks of a loaded model are as good


def needs_of(handler: str, model_dir: Path, optimizes_with_ipex: bool) -> Needs:
    """`optimizes_with_ipex`: whether an eager model that BaseHandler loads gets IPEX here."""
    path = handler.split(":", 1)[0].removesuffix(".py")
    name = path.rsplit("/", 1)[-1]
    roots = [model_dir, (model_dir / path).parent]
    if not any(_module_files(root, [name]) for root in roots):
        if handler not in _BUILTIN_HANDLERS:
            return Needs("plain", can_share=False)
        return Needs("ipex" if optimizes_with_ipex else "torch", can_share=True)
    scan = _ImportScan(roots)
    scan.follow(name)
    if _replaces_installed(roots):
        # A later stage has imported what this archive brings in another version.
        return Needs("plain", can_share=False)
    if scan.reaches_ipex or (scan.reaches_base_handler and optimizes_with_ipex):
        stage = "ipex"
    else:
        stage = "torch" if scan.reaches_torch or scan.reaches_base_handler else "plain"
    is_class = ":" not in handler
    return Needs(stage, can_share=is_class and scan.has_base_initialize())


class _ImportScan:
    """Follows imports from module to module, as far as the archive itself holds them."""

    def __init__(self, roots: list[Path]) -> None:
        self.reaches_torch = False
        self.reaches_ipex = False
        self.reaches_base_handler = False
        self._roots = roots
        self._seen: set[Path] = set()
        self._bytes_left = MAX_SOURCE_BYTES
        self._first: ast.Module | None = None  # the handler's own module

    def follow(self, module: str) -> None:
        """Note what this module reaches."""
        pending = [module]
        known = set(pending)
        while pending:
            parts = pending.pop().split(".")[:MAX_PARTS]
            files = self._files(parts)
            if not files:
                self._note_foreign(parts)
            for file, package in files:
                if file not in self._seen and len(self._seen) < MAX_FILES:
                    self._seen.add(file)
                    tree = _parse(self._read(file))
                    self._first = self._first or tree
                    if tree is not None:
                        names = _imported_names(tree, package) - known
                        known |= names
                        pending += names

    def has_base_initialize(self) -> bool:
        """Whether the handler's one class derives from a built-in handler and keeps its loading.

        A class between the two that is the archive's own counts as one that may not.
        """
        if self._first is None or _defines(self._first.body, "handle"):
            return False
        classes = [node for node in self._first.body if isinstance(node, ast.ClassDef)]
        if len(classes) != 1:
            return False
        (own,) = classes
        bases = {ast.unparse(base).split(".")[0] for base in own.bases} - {"ABC", "object"}
        is_derived = bool(bases) and bases <= _names_from_torch_handler(self._first)
        return is_derived and not own.keywords and not _defines(own.body, "initialize")

    def _files(self, parts: list[str]) -> list[tuple[Path, list[str]]]:
        return [file for root in self._roots for file in _module_files(root, parts)]

    def _note_foreign(self, parts: list[str]) -> None:
        self.reaches_ipex |= parts[0] == "intel_extension_for_pytorch"
        self.reaches_base_handler |= parts[:2] == ["ts", "torch_handler"]
        self.reaches_torch |= parts[0] in _TORCH_PACKAGES

    def _read(self, file: Path) -> bytes:
        try:
            size = file.stat().st_size
            if size > self._bytes_left:
                return b""
            self._bytes_left -= size
            return file.read_bytes()
        except OSError:
            return b""


def _replaces_installed(roots: list[Path]) -> bool:
    """Whether the archive has a module in the place of an installed one, as a copy of numpy."""
    installed = {name for path in sys.path for name in module_names(path)}
    return any(
        _module_files(root, [name])
        for root in {*roots}
        for name in module_names(str(root)) & installed - sys.stdlib_module_names
    )


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


def _parse(source: bytes) -> ast.Module | None:
    """The tree of a module; None when it does not parse: it is then simply not followed."""
    if _ENDLESS_NAME.search(source):
        return None
    try:
        return ast.parse(source)
    # A hostile file can exhaust the parser's stack.
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None


def _defines(body: list[ast.stmt], name: str) -> bool:
    """Whether these statements bind the name in any of the usual ways."""
    for node in body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name == name:
            return True
        if isinstance(node, ast.Import | ast.ImportFrom):
            if any((alias.asname or alias.name) in (name, "*") for alias in node.names):
                return True
        elif not isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            stored = (n for n in ast.walk(node) if isinstance(n, ast.Name))
            if any(n.id == name and isinstance(n.ctx, ast.Store) for n in stored):
                return True
    return False


def _names_from_torch_handler(tree: ast.Module) -> set[str]:
    """The names that a module's top level binds to `ts.torch_handler` or what it holds."""
    names: set[str] = set()
    for node in tree.body:
        if isinstance(node, ast.ImportFrom) and not node.level:
            path = (node.module or "").split(".")[:2]
            if path == ["ts", "torch_handler"]:
                names.update(alias.asname or alias.name for alias in node.names)
    return names


def _imported_names(tree: ast.Module, package: list[str]) -> set[str]:
    """Dotted names that a module of this package imports anywhere."""
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
