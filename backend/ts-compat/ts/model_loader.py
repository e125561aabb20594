"""TorchServe's rules for finding a handler's entry point: "file:function", class, built-in name.

A handler is named in the manifest or at registration. What it names is user code: importing
it, creating its class and calling its initialisation may raise anything. Its directory must be
on `sys.path`, as it is in a worker.
"""

import importlib
import inspect
import json
import os
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from pathlib import Path
from types import ModuleType
from typing import Any, TypeAlias

from ts.context import Context
from ts.metrics.metric_cache_yaml_impl import MetricsCacheYamlImpl
from ts.service import Service
from ts.utils.util import list_classes_from_module

EntryPoint: TypeAlias = Callable[[Any, Context | None], Any]


class ModelLoader(ABC):
    """Loads an unpacked archive into this process."""

    @abstractmethod
    def load(
        self,
        model_name: str,
        model_dir: str,
        handler: str | None = None,
        gpu_id: int | None = None,
        batch_size: int | None = None,
        envelope: str | None = None,
        limit_max_image_pixels: bool | None = True,
        metrics_cache: MetricsCacheYamlImpl | None = None,
    ) -> Service:
        """Raises whatever the handler raises."""


class ModelLoaderFactory:
    """Where TorchServe's tests get their loader."""

    @staticmethod
    def get_model_loader() -> ModelLoader:
        return TsModelLoader()


class TsModelLoader(ModelLoader):
    """The one loader that there is."""

    def load(
        self,
        model_name: str,
        model_dir: str,
        handler: str | None = None,
        gpu_id: int | None = None,
        batch_size: int | None = None,
        envelope: str | None = None,
        limit_max_image_pixels: bool | None = True,
        metrics_cache: MetricsCacheYamlImpl | None = None,
    ) -> Service:
        """Without a handler, the manifest's; without metrics, those of the default metrics.yaml."""
        manifest = _read_manifest(Path(model_dir))
        handler = handler or ((manifest or {}).get("model") or {}).get("handler")
        if not handler:
            raise ValueError(f"no handler: give one, or name it in the manifest of {model_dir}")
        if metrics_cache is None:
            metrics_cache = MetricsCacheYamlImpl()
            metrics_cache.initialize_cache()
        metrics_cache.model_name = model_name
        settings = (bool(limit_max_image_pixels), metrics_cache)
        service = Service(model_name, model_dir, manifest, None, gpu_id, batch_size, *settings)
        entry_point = load_entry_point(handler, envelope or "", service.context)
        service.set_entry_point(entry_point)
        return service


def load_entry_point(handler: str, envelope: str, context: Context) -> EntryPoint:
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
    classes = list_classes_from_module(module)
    if len(classes) != 1:
        names = ", ".join(one.__name__ for one in classes) or "none"
        raise ValueError(f"Expected only one class in custom service code or a function: {names}")
    return classes[0]


def _wrap(entry_point: EntryPoint, envelope: str) -> EntryPoint:
    module = importlib.import_module(f"ts.torch_handler.request_envelope.{envelope}")
    wrapped: EntryPoint = list_classes_from_module(module)[0](entry_point).handle
    return wrapped


def _read_manifest(model_dir: Path) -> dict[str, Any] | None:
    path = model_dir / "MAR-INF" / "MANIFEST.json"
    if not path.is_file():
        return None
    return dict(json.loads(path.read_text("utf-8")))
