"""What a handler logs: on standard output, from INFO on, each message as it is.

TorchServe: its worker sets up Python's root logger so before it imports the handler. Handlers rely
on it: a `logging.basicConfig` of their own has no effect, and `logger.info` reaches the model log.
"""

import logging
import sys

OURS = ("torchkeep", "ts")


def set_up_logging() -> None:
    """Once per process, when its standard streams are those of the model."""
    logging.basicConfig(stream=sys.stdout, format="%(message)s", level=logging.INFO)
    # What we have to warn of is no word of the handler's: it stays on standard error, which the
    # server shows at once.
    warnings = logging.StreamHandler(sys.stderr)
    warnings.setLevel(logging.WARNING)
    others = logging.StreamHandler(sys.stdout)
    others.addFilter(lambda record: record.levelno < logging.WARNING)
    for name in OURS:
        logger = logging.getLogger(name)
        logger.handlers = [warnings, others]
        logger.propagate = False
