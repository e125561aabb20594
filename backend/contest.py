"""A model against faster forms of it: whose answers are the same, and who is faster.

The model's own answer is the measure, on a sample and on others made from it. A form that
differs, fails or gains nothing loses, with a reason.
"""

import contextlib
import math
import time
from collections.abc import Callable, Sequence
from typing import Any

import torch

from torchkeep.backend.candidates import Call, Candidate, Form
from torchkeep.backend.guard import Contract, Guard, plain_attributes
from torchkeep.backend.sample import Answer, NotOptimized, Sample

# The largest difference from the model's own answer, as a part of its largest number.
TOLERANCES = {"float32": 1e-4, "bfloat16": 2e-2}
MIN_GAIN = 0.97  # of the model's own time: for less than 3 % nothing is exchanged
WARM_CALLS = 4  # TorchScript compiles in its second call, IPEX packs weights there
TIMED_ROUNDS = (3, 25)  # at least and at most
TIMING_S = 0.6  # enough rounds once this is spent
# Of one call of the model: checking takes some 15 calls of the model and of each form.
SLOW_CALL_S = 0.5  # the first form that answers alike is the last to compete
MAX_CALL_S = 3.0  # none competes, as that could outlast the time to load


class Contest:
    """The model against candidates, on one sample and on others made from it."""

    def __init__(self, model: Any, sample: Sample, max_call_s: float = MAX_CALL_S) -> None:
        self.model = model
        self._forward: Callable[..., Any] = model.forward
        self._sample = sample
        if not sample.flatten()[1]:
            raise NotOptimized("it takes no tensor")
        # What the first call leaves behind may be a cache, filled once.
        answer, first_s = self._run_model(sample)
        if first_s > max_call_s:
            raise NotOptimized(f"one call takes {first_s:.1f} s, too long to check other forms")
        before = _attributes(model)
        again, second_s = self._run_model(sample)
        if changed := _changed(before, _attributes(model)):
            raise NotOptimized(f"each call changes its attribute {changed}")
        if not answer.difference(again) <= TOLERANCES["float32"]:
            raise NotOptimized("it answers differently each time")
        self.call = Call(sample, answer)
        self.model_s = min(first_s, second_s)
        self._is_constant = answer.shares_memory(again)
        self._others = self._other_calls()

    def _other_calls(self) -> dict[int, Call]:
        """By leading dimension that may vary: a call with another size of it."""
        others = {}
        for dimension in (0, 1) if self._sample.has_lengths() else (0,):
            # A model that takes no other size says so by failing.
            with contextlib.suppress(Exception):
                other = self._sample.with_other_size(dimension)
                others[dimension] = Call(other, self._run_model(other)[0])
        return others

    def _run_model(self, sample: Sample) -> tuple[Answer, float]:
        given = sample.copied()
        started = time.perf_counter()
        try:
            with torch.inference_mode():
                output = self._forward(*given.args, **given.kwargs)
        except Exception as error:
            # Its text might hold the input, which is a user's.
            raise NotOptimized(f"it fails on the sample: {type(error).__name__}") from error
        return Answer.of(output), time.perf_counter() - started

    def winner(self, candidates: Sequence[Candidate]) -> tuple[Guard, str]:
        """A guard around the first form that beats the model, and a line about it.

        Raises NotOptimized when none does.
        """
        reasons: list[str] = []
        for candidate in candidates:
            try:
                form, guard, difference = self._checked(candidate.build())
            except NotOptimized as reason:
                reasons.append(f"{candidate.name}: {reason}")
                continue
            except Exception as error:
                reasons.append(f"{candidate.name}: {_last_line(error)}")
                continue
            model_s, form_s = self._times(guard)
            line = f"{form.name}, {_ms(form_s)} against {_ms(model_s)} eager"
            if form_s < MIN_GAIN * model_s:
                tolerance = f"tolerance {TOLERANCES[form.dtype]:.0e}"
                return guard, f"{line}, differs by {difference:.0e} ({tolerance})"
            reasons.append(f"{line}: no gain")
            if self.model_s > SLOW_CALL_S:
                break
        raise NotOptimized("; ".join(reasons))

    def _checked(self, form: Form) -> tuple[Form, Guard, float]:
        """The form if it answers as the model does, a guard around it, its largest difference."""
        tolerance = TOLERANCES[form.dtype]
        answers = [self._run_form(form, self._sample) for _ in range(WARM_CALLS)]
        difference = max(self.call.answer.difference(answer) for answer in answers)
        if not difference <= tolerance:
            raise NotOptimized(f"differs by {difference:.0e} (tolerance {tolerance:.0e})")
        # Whoever writes into one answer would change all that follow.
        if answers[-1].shares_memory(answers[-2]) and not self._is_constant:
            raise NotOptimized("its answer would be a constant")
        free = []
        for dimension, other in self._others.items():
            if dimension not in form.free:
                continue
            with contextlib.suppress(Exception):
                found = other.answer.difference(self._run_form(form, other.sample))
                if found <= tolerance:
                    difference = max(difference, found)
                    free.append(dimension)
        contract = Contract.of(self._sample, tuple(free))
        return form, Guard(self.model, form.run, contract), difference

    def _run_form(self, form: Form, sample: Sample) -> Answer:
        given = sample.copied()
        with torch.inference_mode():
            return Answer.of(form.run(given.args, given.kwargs, given.flatten()[1]))

    def _times(self, guard: Guard) -> tuple[float, float]:
        """The least time of the model and of the guard, in alternating rounds."""
        model_s = form_s = math.inf
        end = time.perf_counter() + TIMING_S
        for number in range(TIMED_ROUNDS[1]):
            model_s = min(model_s, self._timed(self._forward))
            form_s = min(form_s, self._timed(guard))
            if number + 1 >= TIMED_ROUNDS[0] and time.perf_counter() > end:
                break
        return model_s, form_s

    def _timed(self, forward: Callable[..., Any]) -> float:
        given = self._sample.copied()
        with torch.inference_mode():
            started = time.perf_counter()
            forward(*given.args, **given.kwargs)
            return time.perf_counter() - started


def _ms(duration_s: float) -> str:
    return f"{duration_s * 1000:.1f} ms" if duration_s >= 0.01 else f"{duration_s * 1000:.2g} ms"


def _last_line(error: Exception) -> str:
    lines = str(error).strip().splitlines() or [""]
    # torch writes what matters last, below a trace of the graph.
    return f"{type(error).__name__}: {lines[-1].removeprefix('RuntimeError: ')}"[:200]


def _attributes(model: Any) -> list[tuple[str, Any, Any]]:
    # A ScriptModule keeps its attributes elsewhere, and freezing tells whether they change.
    is_script = isinstance(model, torch.jit.ScriptModule)
    return [] if is_script else list(plain_attributes(model))


def _changed(before: list[tuple[str, Any, Any]], after: list[tuple[str, Any, Any]]) -> str:
    """The name of an attribute that is another object, or of another size or version, now."""
    if len(before) != len(after):
        return "names"
    for (name, old, old_size), (_, new, new_size) in zip(before, after, strict=True):
        if old is not new or old_size != new_size:
            return name
    return ""
