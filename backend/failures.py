"""What a handler's exceptions become: a status and a message, TorchServe's."""

import logging
import traceback
from contextlib import suppress

from torchkeep.backend.handler_output import UnusableOutput, checked_status, checked_text

log = logging.getLogger(__name__)

PREDICTION_FAILED = "Prediction failed"  # TorchServe's words for what a handler raises


def failure(error: Exception, tells_errors: bool) -> tuple[int, str]:
    """The status and message that answer those who asked for what failed; it is logged here."""
    from ts.utils.util import PredictionException

    match error:
        case UnusableOutput():
            with suppress(Exception):  # stderr, as below
                log.warning("%s", error)
            return 503, str(error)
        case PredictionException():
            print_traceback(error)
            status = checked_status(error.error_code)
            # A message that is no text ends TorchServe's worker; here it is written out.
            message = checked_text(str(error.message)) if tells_errors else PREDICTION_FAILED
            # TorchServe: 413 would end the connection like an oversized request.
            return 507 if status == 413 else status, message
        case MemoryError():
            print_traceback(error)
            return 507, "Out of resources"
        case _:
            print_traceback(error)
            if mentions_cuda(error):
                return 507, "Out of resources"
            return 503, PREDICTION_FAILED


def print_traceback(error: BaseException) -> None:
    """To stderr, if the handler has left us one that takes it."""
    with suppress(Exception):
        traceback.print_exception(error)


def mentions_cuda(error: Exception) -> bool:
    """TorchServe's rule for running out of memory. Formatted here, as `str` may itself raise."""
    return "CUDA" in "".join(traceback.format_exception_only(error))
