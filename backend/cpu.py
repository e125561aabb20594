"""A model made faster on a CPU, without changing what it answers.

`optimize(model, sample)` overrides the model's `forward` with a faster form of it: IPEX where
that is installed, else plain torch, behind one function. An eager module is optimised, traced
with the sample and frozen; a ScriptModule is frozen only. Nothing is used that was not checked
against the model itself, answers and time, so the worst outcome is the model as it was.
"""

import contextlib
import ctypes
import gc
import importlib
import importlib.metadata
import logging
import os
import random
import sys
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from torchkeep.backend.candidates import (
    IPEX,
    Candidate,
    candidates,
    candidates_without_sample,
)
from torchkeep.backend.contest import Contest
from torchkeep.backend.guard import Override, hooked_module, is_plain_inference
from torchkeep.backend.process import quiet_stderr
from torchkeep.backend.sample import NotOptimized, Sample
from torchkeep.runtime.cores import cpu_flags

log = logging.getLogger(__name__)

MAX_TRIAL_CALL_S = 0.25  # of one call of the model, where a client waits for the answer
# A quicker call, or smaller weights, are not worth the seconds that importing IPEX takes.
IMPORT_WORTH_S = 0.001
IMPORT_WORTH_BYTES = 1 << 20


@dataclass(frozen=True)
class Outcome:
    """What runs the model now, and one line about it for the log."""

    engine: str  # ipex, torch or eager
    line: str


def optimize(
    model: Any, sample: Sample | None = None, engine: str = "auto", dtype: str = "float32"
) -> Outcome:
    """Make calls like the sample faster; other calls, and all else about the model, stay.

    `engine` is auto (IPEX where it is installed and worth it), ipex, torch or eager; bfloat16
    as `dtype` is tried where the CPU computes in it. Without a sample, what needs none is
    prepared, and the first call decides whether it is used.
    """
    if engine == "eager":
        return Outcome("eager", "eager, as configured")
    try:
        _check_model(model)
        with _undisturbed():
            if sample is None:
                return _try_at_first_call(model, usable_engine(engine, _is_small(model)))
            contest = Contest(model, sample)
            is_quick = contest.model_s < IMPORT_WORTH_S
            engine = usable_engine(engine, is_quick or _is_small(model))
            forms = candidates(model, contest.call, engine, usable_dtype(dtype))
            guard, line = contest.winner(forms)
    except NotOptimized as reason:
        return Outcome("eager", f"eager: {reason}")
    finally:
        _return_memory()
    guard.install()
    return Outcome(line.partition(",")[0], line)


def usable_engine(asked: str, is_quick: bool = False) -> str:
    """ipex or torch: what `asked` means in this process, for a model that is quick or is not."""
    if asked == "torch":
        return "torch"
    if asked == "auto" and IPEX not in sys.modules and is_quick:
        return "torch"
    problem = import_ipex()
    if problem and asked == "ipex":
        log.warning("IPEX is asked for, and plain torch is used: %s", problem)
    return "torch" if problem else "ipex"


def usable_dtype(asked: str) -> str:
    """bfloat16 only where the CPU computes in it."""
    if asked == "bfloat16" and not {"amx_bf16", "avx512_bf16"} & cpu_flags():
        log.warning("bfloat16 is asked for, and float32 is used: this CPU does not compute in it")
        return "float32"
    return asked


def import_ipex() -> str:
    """Import IPEX into this process; returns why that cannot be, or the empty text."""
    if IPEX in sys.modules:
        return ""
    try:
        found = importlib.metadata.version(IPEX)
    except importlib.metadata.PackageNotFoundError:
        return "it is not installed"
    # Beside another torch IPEX prints, and then fails by an error of its own.
    if found.split(".")[:2] != torch.__version__.split(".")[:2]:
        return f"IPEX {found} does not fit torch {torch.__version__}"
    threads = "TORCHINDUCTOR_COMPILE_THREADS"  # otherwise it may start a compile process
    given = os.environ.get(threads)
    os.environ[threads] = "1"
    try:
        # It registers kernels that torch has, and torch warns about each import of it.
        with quiet_stderr(), _own_logging(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            importlib.import_module(IPEX)
    except Exception as error:
        return f"IPEX {found} does not import: {type(error).__name__}"
    finally:
        if given is None:
            del os.environ[threads]
        else:
            os.environ[threads] = given
    return ""


@contextlib.contextmanager
def _own_logging() -> Iterator[None]:
    """IPEX configures the root logger when it is imported; that is `handler_logging`'s to do."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    try:
        yield
    finally:
        root.handlers[:] = handlers
        root.setLevel(level)


def available_bytes() -> int:
    """Memory that this process may still take: the system's, within its control group."""
    lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    free = next(int(line.split()[1]) << 10 for line in lines if line.startswith("MemAvailable"))
    with contextlib.suppress(OSError, ValueError):
        group = Path("/sys/fs/cgroup")
        limit = int((group / "memory.max").read_text(encoding="ascii"))
        used = int((group / "memory.current").read_text(encoding="ascii"))
        usage = dict(line.split() for line in (group / "memory.stat").open(encoding="ascii"))
        # Files that were read and may be dropped count as used there.
        free = min(free, limit - used + int(usage.get("inactive_file", 0)))
    return free


class Trial(Override):
    """Answers from the model; after the first plain call, candidates compete on that call."""

    def __init__(self, model: Any, forms: list[Candidate]) -> None:
        super().__init__(model)
        self._forms = forms

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if not is_plain_inference():
            return self.original(*args, **kwargs)
        self.remove()
        try:
            with _undisturbed():
                contest = Contest(self.model, Sample(args, kwargs).copied(), MAX_TRIAL_CALL_S)
                guard, line = contest.winner(self._forms)
            guard.install()
        except NotOptimized as reason:
            line = f"eager: {reason}"
        print(f"engine: {line}", flush=True)  # noqa: T201 - goes to the model log
        return self.original(*args, **kwargs)


def _try_at_first_call(model: Any, engine: str) -> Outcome:
    forms = candidates_without_sample(model, engine)
    if not forms:
        raise NotOptimized("what it takes is unknown without a `warmup` in model-config.yaml")
    Trial(model, forms).install()
    return Outcome(engine, f"{forms[0].name}: without a `warmup` the first request decides")


def _check_model(model: Any) -> None:
    if not isinstance(model, torch.nn.Module):
        raise NotOptimized(f"the model is a {type(model).__name__} and no torch module")
    if hasattr(model, "_orig_mod"):
        raise NotOptimized("torch.compile runs the model")
    if getattr(model, "training", False):
        raise NotOptimized("the model is in training mode")
    if "forward" in vars(model) and not isinstance(model, torch.jit.ScriptModule):
        raise NotOptimized("the handler has replaced the model's forward")
    if any(not tensor.is_cpu for tensor in (*model.parameters(), *model.buffers())):
        raise NotOptimized("the model is not on the CPU")
    if model._forward_hooks or model._forward_pre_hooks or hooked_module(model) is not None:
        raise NotOptimized("the model has forward hooks")
    size, free = _weight_bytes(model), available_bytes()
    if 2 * size > free:  # the copy, and what is packed from it
        raise NotOptimized(
            f"no memory for a second copy: weights of {size >> 20} MB, {free >> 20} MB available"
        )


def _return_memory() -> None:
    """What IPEX and tracing leave behind holds weights, and glibc keeps what was freed."""
    gc.collect()
    with contextlib.suppress(AttributeError):  # another C library
        ctypes.CDLL(None).malloc_trim(0)


def _is_small(model: Any) -> bool:
    return _weight_bytes(model) < IMPORT_WORTH_BYTES


def _weight_bytes(model: Any) -> int:
    return sum(weight.nbytes for weight in model.parameters())


@contextlib.contextmanager
def _undisturbed() -> Iterator[None]:
    """Without gradients or warnings, and with the handler's random numbers as they were."""
    numpy: Any = sys.modules.get("numpy")
    python_state = random.getstate()
    numpy_state = numpy.random.get_state() if numpy else None
    try:
        # Tensors made in inference mode could not be used outside it.
        with (
            torch.random.fork_rng(devices=[]),
            torch.inference_mode(False),
            torch.no_grad(),
            warnings.catch_warnings(),
        ):
            warnings.simplefilter("ignore")
            yield
    finally:
        random.setstate(python_state)
        if numpy_state is not None:
            numpy.random.set_state(numpy_state)
