"""What stands in for a model's `forward`: its faster form where that is known to be right.

The model keeps its class, its attributes, its other methods and its weights: only the
instance's `forward` is overridden, and every call that differs from what was checked (in
structure, dtype, shape, gradients, autocast, hooks, weights, mode) goes the original way.
"""

import logging
import types
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from torch.utils.hooks import RemovableHandle

from torchkeep.backend.sample import Sample, Structure, Untraceable, flatten

log = logging.getLogger(__name__)

# The faster form: called with the arguments as they came, and with the tensors among them.
Fast: TypeAlias = Callable[[tuple[Any, ...], dict[str, Any], list[Any]], Any]


@dataclass(frozen=True, slots=True)
class Contract:
    """The calls for which the faster form was checked."""

    structure: Structure
    tensors: tuple[tuple[Any, tuple[int, ...]], ...]  # dtype and shape of each
    free: tuple[int, ...]  # leading dimensions whose size may vary, alike in all tensors

    @classmethod
    def of(cls, sample: Sample, free: tuple[int, ...] = ()) -> "Contract":
        structure, leaves = sample.flatten()
        return cls(structure, tuple((x.dtype, tuple(x.shape)) for x in leaves), free)

    def covers(self, structure: Structure, leaves: list[Any]) -> bool:
        if structure != self.structure:
            return False
        for leaf, (dtype, shape) in zip(leaves, self.tensors, strict=True):
            if leaf.dtype is not dtype or leaf.layout is not torch.strided or not leaf.is_cpu:
                return False
            if leaf.shape != shape and not self._fits(leaf.shape, shape, leaves[0].shape):
                return False
        return True

    def _fits(self, given: Any, checked: tuple[int, ...], first: Any) -> bool:
        if len(given) != len(checked):
            return False
        for dimension, (size, expected) in enumerate(zip(given, checked, strict=True)):
            # All tensors had one size in a free dimension, and must have: nothing is broadcast.
            if size != (first[dimension] if dimension in self.free else expected) or size == 0:
                return False
        return True


class Override:
    """An instance's own `forward`, in place of its class's, until it is removed."""

    def __init__(self, model: Any) -> None:
        self.model = model
        self.original: Callable[..., Any] = model.forward
        self._replaced = model.__dict__.get("forward")  # of a ScriptModule made in this process
        # What asks for the signature of `model.forward` finds the original's.
        self.__wrapped__ = self.original
        self.__name__ = "forward"

    def install(self) -> None:
        # Past the `__setattr__` of a ScriptModule, which would look for a TorchScript attribute.
        self.model.__dict__["forward"] = self

    def remove(self) -> None:
        if self.model.__dict__.get("forward") is not self:
            return
        if self._replaced is None:
            del self.model.__dict__["forward"]
        else:
            self.model.__dict__["forward"] = self._replaced

    # A copy of the model, or a pickled one, runs as the class says: the faster form is no
    # part of it, and holds other weights.
    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        return types.MethodType(type(self.model).forward, memo.get(id(self.model), self.model))

    def __reduce__(self) -> Any:
        return getattr, (self.model, "forward")


class Recorder(Override):
    """Keeps the arguments of the first call; calls go the original way."""

    def __init__(self, model: Any) -> None:
        super().__init__(model)
        self.sample: Sample | None = None
        self.reason = "the model was not called"

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if self.sample is None:
            if torch.is_grad_enabled():
                self.reason = "the handler calls it without torch.no_grad()"
            else:
                try:
                    self.sample = Sample(args, kwargs).copied()
                except Untraceable as error:
                    self.reason = str(error)
        return self.original(*args, **kwargs)


class Guard(Override):
    """The faster form where the contract covers a call, else the original."""

    def __init__(self, model: Any, fast: Fast, contract: Contract) -> None:
        super().__init__(model)
        self.fast = fast
        self.contract = contract
        self._state = ModelState(model)
        self._has_failed = False

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if not is_plain_inference() or not self._state.is_unchanged():
            return self.original(*args, **kwargs)
        leaves: list[Any] = []
        try:
            structure = flatten((args, kwargs), leaves)
        except Untraceable:
            return self.original(*args, **kwargs)
        if not self.contract.covers(structure, leaves):
            return self.original(*args, **kwargs)
        try:
            return self.fast(args, kwargs, leaves)
        except Exception:
            # Whatever is wrong, the model itself says it in its own words, or copes.
            if not self._has_failed:
                self._has_failed = True
                log.warning("the optimised model failed on an input, which goes to the original")
            return self.original(*args, **kwargs)


def is_plain_inference() -> bool:
    """No gradients, no autocast, nobody tracing: the state in which the faster form was checked."""
    return not (
        torch.is_grad_enabled() or torch.is_autocast_enabled("cpu") or torch.jit.is_tracing()
    )


class ModelState:
    """Notices, cheaply, that a model is no longer what was optimised.

    Watched: training mode, hooks, the first and last weight (a new state dict, a step of an
    optimiser or a conversion changes them all), and the root's own numbers and flags.
    """

    def __init__(self, model: Any) -> None:
        self._model = model
        weights = [w for w in model.parameters() if not w.is_inference()]
        self._weights = [(w, w._version, w.data_ptr()) for w in {*weights[:1], *weights[-1:]}]
        self._settings = [
            (name, value)
            for name, value in model.__dict__.items()
            if type(value) in (bool, int, float, str, type(None)) and not name.startswith("_")
        ]
        self._last_handle = RemovableHandle.next_id
        self._is_hooked = False

    def is_unchanged(self) -> bool:
        for weight, version, address in self._weights:
            if weight._version != version or weight.data_ptr() != address:
                return False
        values = self._model.__dict__
        for name, value in self._settings:
            now = values.get(name)
            if type(now) is not type(value) or now != value:
                return False
        # Each hook that anyone registers takes a number: no new number, no new hook.
        if RemovableHandle.next_id != self._last_handle or self._is_hooked:
            self._is_hooked = hooked_module(self._model) is not None
            self._last_handle = RemovableHandle.next_id
        return not self._is_hooked


def hooked_module(model: Any) -> str | None:
    """The name of a module inside `model` that has a forward hook: tracing would lose it."""
    for name, module in model.named_modules():
        if name and (module._forward_hooks or module._forward_pre_hooks):
            return str(name)
    return None


def plain_attributes(model: Any) -> Iterator[tuple[str, Any, Any]]:
    """What a forward might leave behind: name, object, and its size or version, of each module."""
    for prefix, module in model.named_modules():
        for name, value in vars(module).items():
            if name in ("_parameters", "_buffers"):
                for key, tensor in value.items():
                    version = None if tensor is None or tensor.is_inference() else tensor._version
                    yield f"{prefix}.{key}".lstrip("."), tensor, version
            elif name != "forward":
                size = len(value) if isinstance(value, list | dict | set) else None
                yield f"{prefix}.{name}".lstrip("."), value, size
