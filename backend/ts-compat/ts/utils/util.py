"""Helpers for handlers: their one exception, class lists, labels and configuration files."""

import functools
import inspect
import json
import logging
import os
import re
import warnings
from collections.abc import Callable, Sequence
from enum import StrEnum
from types import ModuleType
from typing import Any, TypeVar, cast

import yaml

_log = logging.getLogger(__name__)
_Function = TypeVar("_Function", bound=Callable[..., Any])

# The tags and the entities of HTML.
CLEANUP_REGEX = re.compile(r"<.*?>|&([a-z0-9]+|#[0-9]{1,6}|#x[0-9a-f]{1,6});")


class PredictionException(Exception):
    """Answers every request of the batch with this code and message."""

    def __init__(self, message: str, error_code: int = 500) -> None:
        super().__init__(message)
        self.message = message
        self.error_code = error_code

    def __str__(self) -> str:
        return f"{self.message} : {self.error_code}"


class PT2Backend(StrEnum):
    """The backends of `torch.compile` that a model configuration may name."""

    EAGER = "eager"
    AOT_EAGER = "aot_eager"
    INDUCTOR = "inductor"
    NVFUSER = "nvfuser"
    AOT_NVFUSER = "aot_nvfuser"
    AOT_CUDAGRAPHS = "aot_cudagraphs"
    OFI = "ofi"
    FX2TRT = "fx2trt"
    ONNXRT = "onnxrt"
    IPEX = "ipex"
    TORCHXLA_TRACE_ONCE = "torchxla_trace_once"
    OPENVINO = "openvino"
    TENSORRT = "tensorrt"
    HPU_BACKEND = "hpu_backend"


def check_valid_pt2_backend(backend: str) -> bool:
    """Whether `backend` is one of `PT2Backend`; says so in the log when it is not."""
    is_known = any(backend == known.value for known in PT2Backend)
    if not is_known:
        _log.warning("unknown torch.compile backend %s, the model is not compiled", backend)
    return is_known


def list_classes_from_module(
    module: ModuleType, parent_class: type | None = None
) -> list[type[Any]]:
    """The classes that the module defines itself (not those it imports), in order of name."""
    return [
        member
        for _, member in inspect.getmembers(module, inspect.isclass)
        if member.__module__ == module.__name__
        and (parent_class is None or issubclass(member, parent_class))
    ]


def load_label_mapping(mapping_file_path: str) -> dict[str, str] | None:
    """Class numbers to labels from an `index_to_name.json`; None when there is no such file."""
    if not os.path.isfile(mapping_file_path):
        _log.warning("there is no %s: class numbers are the labels", mapping_file_path)
        return None
    with open(mapping_file_path, encoding="utf-8") as file:
        mapping = json.load(file)
    if not isinstance(mapping, dict):
        raise ValueError('index->name JSON mapping should be in "class": "label" format.')
    names = mapping.get("object_type_names")
    if isinstance(names, list):
        mapping = {str(index): name for index, name in enumerate(names)}
    return {number: _label(label) for number, label in mapping.items()}


def map_class_to_label(
    probs: Sequence[Sequence[Any]],
    mapping: dict[str, str] | None = None,
    lbl_classes: Sequence[Sequence[Any]] | None = None,
) -> list[dict[str, Any]]:
    """For each row of probabilities, `{label: probability}` in the order of the row.

    `lbl_classes` holds the class numbers of each row; without it they count from zero.
    """
    if not isinstance(probs, list):
        raise TypeError("Convert classes to list before doing mapping")
    if mapping is not None and not isinstance(mapping, dict):
        raise TypeError("Mapping must be a dict")
    rows = lbl_classes or [range(len(row)) for row in probs]
    return [
        {
            str(number) if mapping is None else mapping[str(number)]: prob
            for number, prob in zip(numbers, row, strict=False)
        }
        for numbers, row in zip(rows, probs, strict=False)
    ]


def get_yaml_config(yaml_file_path: str) -> Any:
    with open(yaml_file_path, encoding="utf-8") as file:
        return yaml.safe_load(file)


def deprecated(
    version: str, replacement: str = "", klass: type[Warning] = PendingDeprecationWarning
) -> Callable[[_Function], _Function]:
    """A decorator: each call warns that the function is deprecated since `version`."""

    def decorate(function: _Function) -> _Function:
        text = f"{function.__name__} is deprecated in {version} and moved to {replacement}"

        @functools.wraps(function)
        def warned(*args: Any, **kwargs: Any) -> Any:
            warnings.warn(text, klass, stacklevel=2)
            return function(*args, **kwargs)

        return cast("_Function", warned)

    return decorate


def _label(label: Any) -> str:
    # ImageNet's file holds ["n01440764", "tench"]: the last item is the readable one.
    if isinstance(label, list) and label:
        label = label[-1]
    if not isinstance(label, str):
        raise ValueError("labels in index->name mapping must be either str or List[str]")
    return label
