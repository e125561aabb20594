"""Metrics as TorchServe's workers print them, one in a line of their stdout.

    [METRICS]Name.Milliseconds:1.5|#ModelName:m,Level:Model|#type:GAUGE|#hostname:vm,1717105307,ID

Ours send theirs along with their answers. But what a handler, or a library of its, prints in this
form is a metric to TorchServe, and so it is here.
"""

import re

from torchkeep.runtime.messages import Metric

_MARK = re.compile(rb"(INFO > )?\[METRICS\]")
_LINE = re.compile(
    r"(?:INFO > )?\[METRICS\]([\w\s]+)\.([\w\s]+):([0-9\-,.e]+)\|#([^|]*)(?:\|#type:([^|]*))?"
    r"\|#hostname:[^|,]+,\d+(?:,(.*))?"
)


def is_metric_line(line: bytes) -> bool:
    return _MARK.match(line) is not None


def parse_metric_line(text: str) -> Metric | None:
    """The metric; None for a line that is none, though it begins as one."""
    match = _LINE.fullmatch(text)
    if match is None:
        return None
    name, unit, number, dimensions, kind, request_ids = match.groups()
    try:
        value = float(number)
    except ValueError:
        return None
    pairs = (entry.split(":") for entry in dimensions.split(","))
    # TorchServe: what is no name with a value is skipped; then there may be too few of them.
    labels = {pair[0]: pair[1] for pair in pairs if len(pair) == 2 and all(pair)}
    return Metric(name, value, unit, (kind or "").lower(), labels, request_ids or "")
