"""Finds plugins, decides whether they may be run here, and runs them.

`plugins_path` is a comma-separated list of folders (every .py file in one whose name begins with
a letter), of files, and of names that installed packages have in the entry point group
`torchkeep.plugins`. Nothing else is run because it happens to be installed.

A file is read once: what was judged and hashed is what runs, and no compiled copy beside it.
"""

import hashlib
import os
import re
import stat
import sys
import traceback
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from importlib.metadata import EntryPoint, entry_points
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import TypeGuard

from torchkeep.runtime.errors import ConfigError
from torchkeep.runtime.plugins import Endpoint
from torchkeep.runtime.snapshot import SnapshotStore

GROUP = "torchkeep.plugins"
HELP = "see docs/plugins.md"


@dataclass(frozen=True, slots=True)
class Found:
    """Something that a plugin holds, and where it comes from, for messages."""

    endpoint: Endpoint
    origin: str


@dataclass(frozen=True, slots=True)
class Plugins:
    """What all plugins hold together."""

    endpoints: list[Found] = field(default_factory=list)
    store_class: type[SnapshotStore] | None = None
    store_origin: str = ""
    sources: list[str] = field(default_factory=list)  # each with its hash or version
    warnings: list[str] = field(default_factory=list)

    def open_store(self) -> SnapshotStore | None:
        """Raises ConfigError where its constructor fails."""
        if self.store_class is None:
            return None
        try:
            return self.store_class()
        except Exception as error:
            raise ConfigError(
                f"plugins_path: {self.store_origin}: the snapshot store cannot be made: "
                f"{type(error).__name__}: {error}"
            ) from error


def load_plugins(places: Sequence[str], cwd: Path, *, is_confidential: bool) -> Plugins:
    """Raises ConfigError, naming file, line and cause, for a plugin that is broken.

    Where it `is_confidential` nothing runs that is not part of the server's own image.
    """
    loader = _Loader(is_confidential)
    for place in places:
        loader.load(place, cwd / place)
    return loader.plugins()


class _Loader:
    def __init__(self, is_confidential: bool) -> None:
        self._endpoints: list[Found] = []
        self._stores: list[tuple[type[SnapshotStore], str]] = []
        self._sources: list[str] = []
        self._warnings: list[str] = []
        self._guard = _Guard(is_confidential, self._warnings)

    def load(self, place: str, path: Path) -> None:
        found_before = len(self._sources)
        entries = list(entry_points(group=GROUP, name=place))
        if path.is_dir():
            self._load_folder(path)
        elif path.is_file():
            self._load_file(path)
        elif entries:
            for entry in entries:
                self._load_entry(entry)
        else:
            # TorchServe: a folder that does not exist is no reason not to start
            self._warnings.append(
                f"plugins_path: {place} is no folder, no file and no installed plugin"
            )
            return
        if len(self._sources) == found_before:
            self._warnings.append(f"plugins_path: there is no Python plugin in {place}, {HELP}")

    def plugins(self) -> Plugins:
        if len(self._stores) > 1:
            origins = " and ".join(origin for _, origin in self._stores)
            raise ConfigError(f"plugins_path: only one snapshot store can be used: {origins}")
        store, origin = self._stores[0] if self._stores else (None, "")
        return Plugins(self._endpoints, store, origin, self._sources, self._warnings)

    def _load_folder(self, folder: Path) -> None:
        try:
            paths = sorted(folder.iterdir())
        except OSError as error:
            raise ConfigError(f"plugins_path: {folder}: {error.strerror}") from error
        for path in paths:
            if path.suffix == ".jar" or (path.suffix == ".py" and path.name[0].isalpha()):
                self._load_file(path)

    def _load_file(self, path: Path) -> None:
        if path.suffix == ".jar":
            self._warnings.append(
                f"plugins_path: {path} is a Java plugin and is not run: here plugins are written"
                f" in Python, {HELP}"
            )
            return
        self._guard.check(path)
        try:
            content = path.read_bytes()
        except OSError as error:
            raise ConfigError(f"plugins_path: {path}: {error.strerror}") from error
        digest = hashlib.sha256(content).hexdigest()
        module = _run(path, content)
        self._collect(list(vars(module).values()), module.__name__, str(path))
        self._sources.append(f"{path} (sha256:{digest})")

    def _load_entry(self, entry: EntryPoint) -> None:
        origin = f"{entry.name} ({entry.value})"
        files = list(_files_of(entry))
        for path in files:
            self._guard.check(path)
        try:
            loaded = entry.load()
        except (Exception, SystemExit) as error:
            raise ConfigError(_cause(origin, error, files)) from error
        values = list(vars(loaded).values()) if isinstance(loaded, ModuleType) else [loaded]
        module = entry.module if isinstance(loaded, ModuleType) else None
        self._collect(values, module, origin)
        package = "" if entry.dist is None else f", {entry.dist.name} {entry.dist.version}"
        self._sources.append(f"{entry.name} ({entry.value}{package})")

    def _collect(self, values: list[object], module: str | None, origin: str) -> None:
        """Endpoints once each; of a module's stores its own: what it imports may be a base."""
        for value in values:
            if isinstance(value, Endpoint):
                if all(found.endpoint is not value for found in self._endpoints):
                    self._endpoints.append(Found(value, _where(value, origin)))
            elif _is_store_class(value) and module in (None, value.__module__):
                self._stores.append((value, origin))


def _is_store_class(value: object) -> TypeGuard[type[SnapshotStore]]:
    """Whether it says so itself: methods of the same names are not enough."""
    return isinstance(value, type) and SnapshotStore in value.__mro__


class _Guard:
    """Who may write a plugin may do all that the server may, so not everybody may."""

    def __init__(self, is_confidential: bool, warnings: list[str]) -> None:
        self._is_confidential = is_confidential
        self._warnings = warnings
        self._trusted_users = {0, os.geteuid()}

    def check(self, path: Path) -> None:
        """Raises ConfigError where somebody else could put his code in the place of this file."""
        real = Path(os.path.realpath(path))
        for one in (real, *real.parents):
            self._check_one(one, may_be_sticky=one not in (real, real.parent))
        if self._is_confidential and _mount_of(real) != _mount_of(Path(__file__)):
            raise _refusal(
                real,
                "is on another mount than the server's own code, so no part of the image that"
                " is measured",
            )

    def _check_one(self, path: Path, *, may_be_sticky: bool) -> None:
        try:
            status = path.stat()
        except OSError as error:
            raise ConfigError(f"plugins_path: {path}: {error.strerror}") from error
        if status.st_mode & stat.S_IWOTH and not (may_be_sticky and status.st_mode & stat.S_ISVTX):
            raise _refusal(path, "can be written by everybody")
        if self._is_confidential and status.st_mode & stat.S_IWGRP and status.st_gid != 0:
            raise _refusal(path, f"can be written by group {status.st_gid}")
        if status.st_uid not in self._trusted_users:
            owner = f"belongs to user {status.st_uid}, who is neither root nor the server's own"
            if self._is_confidential:
                raise _refusal(path, owner)
            warning = f"plugins_path: {path} {owner}"
            if warning not in self._warnings:
                self._warnings.append(warning)


def _refusal(path: Path, reason: str) -> ConfigError:
    return ConfigError(
        f"plugins_path: {path} {reason}. A plugin runs inside the server, with its keys and"
        f" everybody's requests: {HELP}"
    )


def _run(path: Path, content: bytes) -> ModuleType:
    module = ModuleType(f"torchkeep_plugin_{path.stem}")
    module.__file__ = str(path)
    sys.modules[module.__name__] = module  # dataclasses look their own module up
    try:
        exec(compile(content, path, "exec"), module.__dict__)
    except (Exception, SystemExit) as error:
        raise ConfigError(_cause(str(path), error, [path])) from error
    return module


def _cause(origin: str, error: BaseException, files: Sequence[Path]) -> str:
    """One line: the file, the last line of it that was reached, and what is wrong there."""
    names = [str(path) for path in files]
    frames = traceback.extract_tb(error.__traceback__)
    places = [f"{one.filename}, line {one.lineno}" for one in frames if one.filename in names]
    words = " ".join(str(error).split())
    if isinstance(error, SyntaxError) and error.filename in names:
        places.append(f"{error.filename}, line {error.lineno}")
        words = error.msg
    place = places[-1] if places else origin
    return f"plugins_path: {place}: {type(error).__name__}: {words}"


def _where(endpoint: Endpoint, origin: str) -> str:
    code = getattr(endpoint.function, "__code__", None)
    return f"{origin}, line {code.co_firstlineno}" if code else origin


def _files_of(entry: EntryPoint) -> Iterator[Path]:
    """What importing the entry runs, as far as that can be known without running it."""
    first, *rest = entry.module.split(".")
    spec = find_spec(first)
    if spec is None:
        return
    folders = [Path(folder) for folder in spec.submodule_search_locations or ()]
    yield from [Path(spec.origin)] if spec.origin else folders
    for folder in folders:
        module = folder.joinpath(*rest).with_suffix(".py")
        if rest and module.is_file():
            yield module


def _mount_of(path: Path) -> Path:
    """The mount point that a path is below; bind mounts count, of single files too."""
    real = Path(os.path.realpath(path))
    mounts = Path("/proc/self/mountinfo").read_text(encoding="utf-8", errors="surrogateescape")
    points = {_unescaped(line.split(" ")[4]) for line in mounts.splitlines()}
    return next(one for one in (real, *real.parents) if str(one) in points)


def _unescaped(point: str) -> str:
    """The kernel spells blanks and backslashes of a path as octal numbers."""
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), point)
