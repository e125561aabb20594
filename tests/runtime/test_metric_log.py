"""Lines of metrics: numbers as Java spells them, one line each, and bounded."""

import re

import pytest

from torchkeep.runtime import metric_log as module
from torchkeep.runtime.log_text import Bell
from torchkeep.runtime.metric_log import MetricLog, Series, java_double, series

QUEUE_TIME = series("QueueTime", "Milliseconds", ("Level", "Hostname"), ("Host", "vm"))


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0.0"),
        (3, "3.0"),
        (-3, "-3.0"),
        (83.13, "83.13"),
        (0.001, "0.001"),
        (0.0001, "1.0E-4"),
        (-0.00012, "-1.2E-4"),
        (9999999.0, "9999999.0"),
        (1e7, "1.0E7"),
        (12345678.5, "1.23456785E7"),
        (123456789.5, "1.234567895E8"),
        (-2e7, "-2.0E7"),
        (1e16, "1.0E16"),
        (1.5e300, "1.5E300"),
        (5e-324, "5.0E-324"),
        (float("inf"), "+Inf"),
        (float("-inf"), "-Inf"),
        (float("nan"), "NaN"),
    ],
)
def test_numbers_are_spelled_as_java_does(value: float, text: str) -> None:
    assert java_double(value) == text


def test_a_line_in_torchserves_format() -> None:
    log = MetricLog(Bell(lambda _: None))
    log.add(QUEUE_TIME, 0)
    log.add(QUEUE_TIME, 20_000_000)
    pattern = (
        r"(?:\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d,\d{3}) - QueueTime\.Milliseconds:(\S+)\|"
        r"#Level:Host\|#hostname:vm,timestamp:\d{10}"
    )
    assert re.findall(pattern, log.take()) == ["0.0", "2.0E7"]
    assert log.take() == ""


def test_the_bell_rings_once_for_many_lines() -> None:
    rung: list[Bell] = []
    log = MetricLog(Bell(rung.append))
    log.add(QUEUE_TIME, 1)
    log.add(QUEUE_TIME, 1)
    assert len(rung) == 1


def test_lines_that_nobody_takes_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_MAX_NOTED", 3)
    log = MetricLog(Bell(lambda _: None))
    for _ in range(5):
        log.add(QUEUE_TIME, 1)
    lines = log.take().splitlines()
    assert len(lines) == 4
    assert lines[-1].endswith(" - (2 lines after these were dropped)")
    log.add(QUEUE_TIME, 1)
    assert log.take().count("\n") == 1


def test_labels_are_spelled_once_and_forgotten_before_they_fill_the_memory(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "_MAX_KNOWN", 2)
    log = MetricLog(Bell(lambda _: None))
    spelled = []

    def spell(labels: tuple[str, ...]) -> Series:
        spelled.append(labels)
        return series("N", "ms", ("Level", "Hostname"), labels)

    record = log.recorder(spell)
    for label in ("a", "a", "b", "c", "a"):
        record((label, "vm"), 1)
    assert [label for label, _ in spelled] == ["a", "b", "c", "a"]
    assert log.take().count("N.ms:1.0|#Level:") == 5


def test_a_recorder_counts_what_nobody_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_MAX_NOTED", 3)
    log = MetricLog(Bell(lambda _: None))
    record = log.recorder(lambda _labels: QUEUE_TIME)
    for _ in range(5):
        record((), 1)
    assert log.take().endswith("(2 lines after these were dropped)\n")
