"""What a worker does between loading a model and saying that it is ready.

The model is called as a request would call it, which tells what its input looks like: its
sample. With that it is optimised, and the form that will answer is run until it is quick.
Whatever goes wrong here is a warning: the model was loaded, and serves.
"""

import logging
import mimetypes
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torchkeep.backend.failures import print_traceback
from torchkeep.runtime.messages import InputParameter, Load, Predictions, RequestInput

if TYPE_CHECKING:
    from torchkeep.backend.sample import Sample
    from ts.context import Context

log = logging.getLogger(__name__)

REPEATS = 3  # of a request or a call, once the final form is in place


@dataclass(frozen=True)
class WarmUp:
    """What came of it."""

    engine: str = ""  # what runs the model; empty where that is not ours to choose
    # Runs the model so many times as a request would: a fork of this process proves itself
    # by it before it serves.
    run: Callable[[int], object] = lambda times: None


def warm_up(
    load: Load, context: "Context", predict: Callable[[RequestInput], Predictions]
) -> WarmUp:
    """Make the loaded model ready."""
    request = _request(load) if load.warm_up_file else None
    model = _base_handlers_model(context)
    if model is None:
        if request is None:
            return WarmUp()
        _repeat(predict, request, 1)
        return WarmUp(run=partial(_repeat, predict, request))
    # Only a process that has such a model has imported torch.
    from torchkeep.backend.cpu import optimize

    sample, obstacle = _sample(load, context, model, request, predict)
    if obstacle:
        line = f"eager: {obstacle}"
    else:
        line = optimize(model, sample, load.engine, load.dtype).line
    print(f"engine: {line}", flush=True)  # noqa: T201 - goes to the model log
    if sample is not None and request is not None:
        done = WarmUp(line, partial(_repeat, predict, request))
    elif sample is not None:
        done = WarmUp(line, partial(_call, model, sample))
    else:
        done = WarmUp(line)
    done.run(REPEATS)
    return done


def _base_handlers_model(context: "Context") -> Any:
    """The model that BaseHandler loaded, if its handler still has it; else None."""
    handler = context.base_handler and context.base_handler()
    model = getattr(handler, "model", None)
    is_untouched = model is not None and model is getattr(handler, "_loaded_model", None)
    return model if is_untouched else None


def _sample(
    load: Load,
    context: "Context",
    model: Any,
    request: RequestInput | None,
    predict: Callable[[RequestInput], Predictions],
) -> "tuple[Sample | None, str]":
    """What a call of the model looks like, and why that could not be learnt."""
    from torchkeep.backend.guard import Recorder
    from torchkeep.backend.sample import Sample, sample_of_shapes

    if request is not None and "forward" not in vars(model):
        recorder = Recorder(model)
        recorder.install()
        try:
            is_answered = _repeat(predict, request, 1)
        finally:
            recorder.remove()
        if not is_answered:
            return None, "the warm-up request failed"
        return recorder.sample, "" if recorder.sample else f"at the warm-up, {recorder.reason}"
    if load.warm_up_inputs:
        return sample_of_shapes([(one.shape, one.dtype) for one in load.warm_up_inputs]), ""
    handler = context.base_handler and context.base_handler()
    try:
        image = getattr(handler, "_sample_input", lambda: None)()
    except Exception as error:  # the image_processing of a subclass
        log.warning("no sample from the handler: %s", type(error).__name__)
        image = None
    return (None if image is None else Sample((image,))), ""


def _request(load: Load) -> RequestInput:
    """The request that the archive holds, as `curl -T` would send it."""
    body = (Path(load.model_dir) / load.warm_up_file).read_bytes()
    content_type = mimetypes.guess_type(load.warm_up_file)[0] or ""
    headers = {"Content-Type": content_type} if content_type else {}
    return RequestInput("warm-up", headers, [InputParameter("body", body, content_type)])


def _repeat(
    predict: Callable[[RequestInput], Predictions], request: RequestInput, times: int
) -> bool:
    """Send the request through the handler; False as soon as it fails."""
    for _ in range(times):
        try:
            reply = predict(request)
        except Exception as error:
            print_traceback(error)
            log.warning("the warm-up request failed: %s", type(error).__name__)
            return False
        if reply.status != 200:
            log.warning("the warm-up request failed: %d %s", reply.status, reply.message)
            return False
    return True


def _call(model: Any, sample: "Sample", times: int) -> None:
    torch: Any = sys.modules["torch"]
    try:
        with torch.inference_mode():
            for _ in range(times):
                given = sample.copied()
                model(*given.args, **given.kwargs)
    except Exception as error:
        log.warning("the model failed on the warm-up sample: %s: %s", type(error).__name__, error)
