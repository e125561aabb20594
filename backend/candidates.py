"""The faster forms of a model that each engine can make. Not one of them is checked here.

An eager module is copied for IPEX, because `ipex.optimize` rearranges the weights of the model
it is given even when it returns another. A traced form takes and gives tensors alone.
"""

import contextlib
import copy
import importlib
import inspect
import sys
import warnings
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

from torchkeep.backend.guard import Fast
from torchkeep.backend.sample import Answer, NotOptimized, Sample, Structure, flatten, rebuild
from torchkeep.runtime.cores import cpu_flags

IPEX = "intel_extension_for_pytorch"


@dataclass(frozen=True)
class Form:
    """One faster form, built: what it is called in the log, and what runs it."""

    name: str
    dtype: str
    run: Fast
    free: tuple[int, ...] = (0, 1)  # leading dimensions whose size may vary, if checked


@dataclass(frozen=True)
class Call:
    """One call of a model and what it answered."""

    sample: Sample
    answer: Answer


@dataclass(frozen=True)
class Candidate:
    """A form that can be built; building may raise anything."""

    name: str
    build: Callable[[], Form]


def candidates(model: Any, call: Call, engine: str, dtype: str) -> list[Candidate]:
    """What `engine` (ipex or torch) can make of the model, what gains most first."""
    if isinstance(model, torch.jit.ScriptModule):
        return _script_candidates(model, engine)
    found = []
    for precision in dict.fromkeys((dtype, "float32")):
        if engine == "ipex":
            found.append(_candidate(_ipex_form, engine, precision, model, call))
        elif precision == "float32" and IPEX not in sys.modules:
            # IPEX's passes would turn this form into one that fails.
            found.append(_candidate(_for_inference, "torch", "float32", model, call))
        found.append(_candidate(_torch_form, "torch", precision, model, call))
    return found


def _script_candidates(model: Any, engine: str) -> list[Candidate]:
    # `ipex.optimize` makes a ScriptModule 2.4 times slower; freezing one is enough for the
    # passes that IPEX brings, and those prefer convolutions with the channels last.
    plain = Candidate(f"{engine}, frozen", lambda: frozen(model, engine))
    if all(weight.ndim < 4 for weight in model.parameters()):
        return [plain]
    if IPEX in sys.modules:
        name = f"{engine}, frozen with channels last"
        return [Candidate(name, lambda: _frozen_channels_last(model, name)), plain]
    name = "torch, frozen and laid out for oneDNN"
    return [Candidate(name, lambda: _script_for_inference(model, name)), plain]


def candidates_without_sample(model: Any, engine: str) -> list[Candidate]:
    """What can be made of the model before any call is known. It is built at once."""
    if isinstance(model, torch.jit.ScriptModule):
        form = frozen(model, engine)
    elif engine == "ipex":
        form = Form("ipex, float32", "float32", _as_it_comes(_ipex_module(model, None)))
    else:
        return []
    return [Candidate(form.name, lambda: form)]


def frozen(model: Any, engine: str) -> Form:
    """A ScriptModule with its weights as constants."""
    return Form(f"{engine}, frozen", "float32", _as_it_comes(_only_constants(model)))


def _frozen_channels_last(model: Any, name: str) -> Form:
    module = copy.deepcopy(model).to(memory_format=torch.channels_last)
    return Form(name, "float32", _as_it_comes(_only_constants(module)))


def _script_for_inference(model: Any, name: str) -> Form:
    module = torch.jit.optimize_for_inference(_only_constants(model))
    return Form(name, "float32", _as_it_comes(module))


def _only_constants(model: Any) -> Any:
    module = torch.jit.freeze(model)
    if module.graph.findNode("prim::GetAttr") is not None:
        raise NotOptimized("its forward changes its own attributes")
    return module


def _candidate(
    build: Callable[[Any, Call, str], Form], engine: str, dtype: str, model: Any, call: Call
) -> Candidate:
    return Candidate(f"{engine}, {dtype}", lambda: build(model, call, dtype))


def _ipex_form(model: Any, call: Call, dtype: str) -> Form:
    module = _ipex_module(model, call.sample, dtype)
    try:
        traced, free = _traced(module, call, dtype)
    except NotOptimized as reason:
        if dtype != "float32":
            raise
        return Form(f"ipex, float32, not traced ({reason})", dtype, _as_it_comes(module))
    run = _by_tensors(_alone(torch.jit.freeze(traced)), call.answer.structure)
    return Form(f"ipex, {dtype}, traced and frozen", dtype, run, free)


def _torch_form(model: Any, call: Call, dtype: str) -> Form:
    traced, free = _traced(model, call, dtype)
    run = _by_tensors(_alone(torch.jit.freeze(traced)), call.answer.structure)
    return Form(f"torch, {dtype}, traced and frozen", dtype, run, free)


def _for_inference(model: Any, call: Call, dtype: str) -> Form:
    traced, free = _traced(model, call, dtype)
    module = torch.jit.optimize_for_inference(traced)
    run = _by_tensors(_alone(module), call.answer.structure)
    return Form(f"torch, {dtype}, traced, frozen and laid out for oneDNN", dtype, run, free)


def _ipex_module(model: Any, sample: Sample | None, dtype: str = "float32") -> Any:
    """A copy of the model with IPEX's layers in place of torch's."""
    ipex: Any = importlib.import_module(IPEX)
    arguments = None if sample is None else _positional(model, sample.copied())
    # Folding traces the module with torch.fx, which takes the wrong branch at `is None`.
    has_norms = any("BatchNorm" in type(one).__name__ for one in model.modules())
    folds = has_norms and all(isinstance(one, torch.Tensor) for one in arguments or ())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return ipex.optimize(
            copy.deepcopy(model),
            dtype=getattr(torch, dtype),
            inplace=True,
            conv_bn_folding=folds,
            linear_bn_folding=folds,
            # Bare `ipex.optimize` guesses a layout for the weights. Below AVX-512 the guess
            # costs 7 to 13 times the model's own time.
            weights_prepack=sample is not None or "avx512f" in cpu_flags(),
            sample_input=arguments,
        )


def _positional(model: Any, sample: Sample) -> tuple[Any, ...]:
    """The sample's arguments as positional ones, which is all that `ipex.optimize` takes."""
    bound = inspect.signature(model.forward).bind(*sample.args, **sample.kwargs)
    bound.apply_defaults()
    if bound.kwargs:
        raise NotOptimized("it has arguments by keyword only")
    return bound.args


class _FlatCall(torch.nn.Module):  # type: ignore[misc]
    """A module as a function from tensors to tensors, which is what tracing can record."""

    def __init__(self, module: Any, structure: Structure, dtypes: list[Any]) -> None:
        super().__init__()
        self.module = module
        self._structure = structure
        self._dtypes = dtypes  # of the outputs, as the model itself has them

    def forward(self, *leaves: Any) -> tuple[Any, ...]:
        args, kwargs = rebuild(self._structure, iter(leaves))
        found: list[Any] = []
        flatten(self.module(*args, **kwargs), found, constants=False)
        return tuple([x.to(dtype) for x, dtype in zip(found, self._dtypes, strict=True)])


def _traced(module: Any, call: Call, dtype: str) -> tuple[Any, tuple[int, ...]]:
    """The call of `module`, recorded, and the dimensions in which it may hold for other sizes.

    Raises NotOptimized if it holds for these very numbers alone.
    """
    traced, place = _recorded(module, call, dtype, contextlib.nullcontext())
    if not place:
        return traced, (0, 1)
    # torch cannot tell a decision by a shape from one by a value, unless shapes are plain numbers.
    _, other_place = _recorded(module, call, dtype, _PlainShapes())
    if other_place:
        raise NotOptimized(f"its control flow may depend on its input: {place}")
    # What was decided by a length may be decided otherwise for the next one.
    return traced, (0,)


def _recorded(
    module: Any, call: Call, dtype: str, mode: AbstractContextManager[Any]
) -> tuple[Any, str]:
    """The record, and the first place that made a decision which it does not hold."""
    structure, leaves = call.sample.copied().flatten()
    flat = _FlatCall(module, structure, [leaf.dtype for leaf in call.answer.leaves]).eval()
    # Its cache would keep weights that were cast while tracing out of the trace.
    cast = torch.autocast("cpu", torch.bfloat16, dtype == "bfloat16", cache_enabled=False)
    with warnings.catch_warnings(record=True) as caught, cast, mode:
        warnings.simplefilter("always")
        traced = torch.jit.trace(flat, tuple(leaves), check_trace=False)
    for warning in caught:
        if issubclass(warning.category, torch.jit.TracerWarning):
            return traced, f"{Path(warning.filename).name}, line {warning.lineno}"
    return traced, ""


class _PlainShapes(TorchFunctionMode):  # type: ignore[misc]
    """While tracing: what asks for a shape gets numbers, not values to be recorded."""

    _ASKING = frozenset(
        {
            torch.Tensor.shape.__get__,
            torch.Tensor.size,
            torch.Tensor.numel,
            torch.Tensor.nelement,
            torch.Tensor.__len__,
        }
    )

    def __torch_function__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        if function not in self._ASKING:
            return function(*args, **(kwargs or {}))
        state = torch._C._get_tracing_state()
        torch._C._set_tracing_state(None)
        try:
            return function(*args, **(kwargs or {}))
        finally:
            torch._C._set_tracing_state(state)


def _alone(module: Any) -> Any:
    """What a frozen module computes, as a function that can be forgotten.

    torch keeps the class of every module that was traced, for ever, and the weights in its graph
    with it: of IPEX's form of BERT-base 1.6 GB, for weights of 0.4 GB.
    """
    try:
        graph = module.graph.copy()
        graph.eraseInput(0)  # the module, whose attributes are all constants by now
        function = torch._C._create_function_from_graph("forward", graph)
    except (AttributeError, RuntimeError):  # in no public interface
        return module
    for node in module.graph.nodes():
        if node.kind() == "prim::Constant" and node.hasAttribute("value"):
            node.removeAttribute("value")
    return function


def _by_tensors(module: Any, structure: Structure) -> Fast:
    def run(args: Any, kwargs: Any, leaves: list[Any]) -> Any:
        return rebuild(structure, iter(module(*leaves)))

    return run


def _as_it_comes(module: Any) -> Fast:
    def run(args: Any, kwargs: Any, leaves: list[Any]) -> Any:
        return module(*args, **kwargs)

    return run
