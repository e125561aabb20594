"""The faster forms of a model that each engine can make. Not one of them is checked here.

An eager module is copied for IPEX, because `ipex.optimize` rearranges the weights of the model
it is given even when it returns another. A traced form takes and gives tensors alone.
"""

import copy
import importlib
import inspect
import sys
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from torchkeep.backend.guard import Fast
from torchkeep.backend.sample import Answer, NotOptimized, Sample, Structure, flatten, rebuild

IPEX = "intel_extension_for_pytorch"


@dataclass(frozen=True)
class Form:
    """One faster form, built: what it is called in the log, and what runs it."""

    name: str
    dtype: str
    run: Fast


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
    """What `engine` (ipex or torch) can make of the model, in `dtype` and in float32."""
    found = []
    if isinstance(model, torch.jit.ScriptModule):
        found.append(Candidate("torch, frozen", lambda: frozen(model)))
        if IPEX not in sys.modules:
            found.append(
                Candidate("torch, frozen for oneDNN", lambda: _script_for_inference(model))
            )
        return found
    for precision in dict.fromkeys((dtype, "float32")):
        if engine == "ipex":
            found.append(_candidate(_ipex_form, engine, precision, model, call))
        found.append(_candidate(_torch_form, "torch", precision, model, call))
    if IPEX not in sys.modules:  # whose passes turn this form into one that fails
        found.append(_candidate(_for_inference, "torch", "float32", model, call))
    return found


def candidates_without_sample(model: Any, engine: str) -> list[Candidate]:
    """What can be made of the model before any call is known. It is built at once."""
    if isinstance(model, torch.jit.ScriptModule):
        form = frozen(model)
    elif engine == "ipex":
        form = Form("ipex, float32", "float32", _as_it_comes(_ipex_module(model, None)))
    else:
        return []
    return [Candidate(form.name, lambda: form)]


def frozen(model: Any) -> Form:
    """A ScriptModule with its weights as constants."""
    module = _frozen_script(model)
    return Form("torch, frozen", "float32", _as_it_comes(module))


def _script_for_inference(model: Any) -> Form:
    module = torch.jit.optimize_for_inference(_frozen_script(model))
    return Form("torch, frozen and laid out for oneDNN", "float32", _as_it_comes(module))


def _frozen_script(model: Any) -> Any:
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
        traced = _traced(module, call, dtype)
    except NotOptimized as reason:
        if dtype != "float32":
            raise
        return Form(f"ipex, float32, not traced ({reason})", dtype, _as_it_comes(module))
    run = _by_tensors(torch.jit.freeze(traced), call.answer.structure)
    return Form(f"ipex, {dtype}, traced and frozen", dtype, run)


def _torch_form(model: Any, call: Call, dtype: str) -> Form:
    run = _by_tensors(torch.jit.freeze(_traced(model, call, dtype)), call.answer.structure)
    return Form(f"torch, {dtype}, traced and frozen", dtype, run)


def _for_inference(model: Any, call: Call, dtype: str) -> Form:
    module = torch.jit.optimize_for_inference(_traced(model, call, dtype))
    name = f"torch, {dtype}, traced, frozen and laid out for oneDNN"
    return Form(name, dtype, _by_tensors(module, call.answer.structure))


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


def cpu_flags() -> frozenset[str]:
    """The instruction sets that Linux names for this CPU."""
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        if line.startswith("flags"):
            return frozenset(line.partition(":")[2].split())
    return frozenset()


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


def _traced(module: Any, call: Call, dtype: str) -> Any:
    """The call of `module`, recorded; raises NotOptimized if the record would hold for it alone."""
    structure, leaves = call.sample.copied().flatten()
    flat = _FlatCall(module, structure, [leaf.dtype for leaf in call.answer.leaves]).eval()
    # Its cache would keep weights that were cast while tracing out of the trace.
    cast = torch.autocast("cpu", torch.bfloat16, dtype == "bfloat16", cache_enabled=False)
    with warnings.catch_warnings(record=True) as caught, cast:
        warnings.simplefilter("always")
        traced = torch.jit.trace(flat, tuple(leaves), check_trace=False)
    for warning in caught:
        if issubclass(warning.category, torch.jit.TracerWarning):
            place = f"{Path(warning.filename).name}, line {warning.lineno}"
            raise NotOptimized(f"its control flow may depend on its input: {place}")
    return traced


def _by_tensors(module: Any, structure: Structure) -> Fast:
    def run(args: Any, kwargs: Any, leaves: list[Any]) -> Any:
        return rebuild(structure, iter(module(*leaves)))

    return run


def _as_it_comes(module: Any) -> Fast:
    def run(args: Any, kwargs: Any, leaves: list[Any]) -> Any:
        return module(*args, **kwargs)

    return run
