"""Metrics that a worker prints, as TorchServe's do."""

import pytest

from torchkeep.frontend.metric_lines import is_metric_line, parse_metric_line
from torchkeep.runtime.messages import Metric

LINE = "[METRICS]Work.Milliseconds:1.5|#ModelName:m,Level:Model|#type:GAUGE|#hostname:vm,1717105307"
WORK = Metric("Work", 1.5, "Milliseconds", "gauge", {"ModelName": "m", "Level": "Model"})


def test_a_line_in_torchserves_grammar_is_a_metric() -> None:
    assert parse_metric_line(LINE) == WORK
    with_ids = parse_metric_line(f"{LINE},one,two")
    assert with_ids is not None
    assert with_ids.request_id == "one,two"
    assert parse_metric_line(f"INFO > {LINE}") == WORK


def test_the_type_may_be_missing_and_a_name_may_have_blanks() -> None:
    metric = parse_metric_line("[METRICS]A b.Count:2|#Level:Host|#hostname:vm,1717105307")
    assert metric == Metric("A b", 2.0, "Count", "", {"Level": "Host"})


def test_dimensions_that_are_no_name_with_a_value_are_skipped() -> None:
    metric = parse_metric_line(LINE.replace("Level:Model", "a:b:c,d:,e,Level:Model"))
    assert metric == WORK


@pytest.mark.parametrize(
    "text",
    [
        "[METRICS]",
        "[METRICS]garbage",
        LINE.replace("1.5", "nan"),
        LINE.replace("1.5", "inf"),
        LINE.replace("1.5", "1,5"),
        LINE.replace("1.5", ""),
        LINE.replace("Work", "Wo-rk"),
        LINE.replace("|#hostname:vm,1717105307", ""),
        LINE.replace("1717105307", "yesterday"),
        "[METRICS]Failed to update metric with name:N and dimensions: Level:Model with value: -1:"
        " Counter metric update value cannot be negative",
    ],
)
def test_any_other_line_with_the_mark_is_none(text: str) -> None:
    assert is_metric_line(text.encode())
    assert parse_metric_line(text) is None


@pytest.mark.parametrize("line", [b"", b" [METRICS]x", b"METRICS", b"hello [METRICS]"])
def test_lines_without_the_mark_are_left_alone(line: bytes) -> None:
    assert not is_metric_line(line)
