"""Statistics, targets and the table of a benchmark."""

import json

import pytest

from bench.report import BARE, OURS, REFERENCE, Report, Row, Series, Target, number, table


def rates(ours: tuple[float, ...], theirs: tuple[float, ...]) -> Row:
    return Row("echo", "throughput", "requests/s", {OURS: Series(ours), REFERENCE: Series(theirs)})


def test_ratio_is_of_the_medians_and_its_spread_is_by_round() -> None:
    row = rates((4000.0, 5000.0, 9000.0), (1000.0, 2000.0, 500.0))
    assert row.ratio(REFERENCE) == 5
    assert row.ratios(REFERENCE).values == (4, 2.5, 18)


def test_series_shows_median_and_extremes() -> None:
    assert str(Series((3.0, 1.0, 2.0, 10.0))) == "2.50 (1.00-10.0)"


def test_empty_series_is_refused() -> None:
    with pytest.raises(ValueError, match="needs a value"):
        Series(())


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (0, "0"),
        (0.0799, "0.0799"),
        (0.3333, "0.333"),
        (4, "4.00"),
        (99.99, "100.0"),
        (1191.4, "1191"),
        (float("inf"), "inf"),
    ],
)
def test_number_has_three_digits(value: float, shown: str) -> None:
    assert number(value) == shown


@pytest.mark.parametrize(("ours", "verdict"), [(3999.0, "below"), (4000.0, "ok")])
def test_lower_bound_includes_itself(ours: float, verdict: str) -> None:
    target = Target("echo", "throughput", REFERENCE, at_least=4)
    assert target.check([rates((ours,), (1000.0,))]) == (ours / 1000, verdict)


@pytest.mark.parametrize(("ours", "verdict"), [(60.0, "ok"), (60.1, "below")])
def test_upper_bound_of_our_own_figure(ours: float, verdict: str) -> None:
    target = Target("echo", "throughput", None, at_most=60)
    assert target.check([rates((ours,), (800.0,))]) == (ours, verdict)


def test_errors_make_a_target_invalid() -> None:
    row = rates((9000.0,), (1000.0,))
    row.errors[REFERENCE] = {"status": 2}
    assert Target("echo", "throughput", REFERENCE, at_least=4).check([row]) == (None, "invalid")


def test_target_without_its_row_is_not_measured() -> None:
    target = Target("bert", "throughput", REFERENCE, at_least=4)
    assert target.check([rates((1.0,), (1.0,))]) == (None, "not measured")


def test_table_aligns_columns_and_leaves_no_trailing_space() -> None:
    text = table(("case", "value"), [("echo", "1"), ("a longer one", "")])
    assert text.splitlines() == [
        "case          value",
        "------------  -----",
        "echo          1",
        "a longer one",
    ]


def test_report_has_rows_targets_errors_and_notes() -> None:
    row = rates((9000.0,), (1000.0,))
    row.series[BARE] = Series((10000.0,))
    spoiled = rates((1.0,), (1.0,))
    spoiled.case, spoiled.errors = "resnet", {OURS: {"timeout": 7}}
    report = Report({"Processor": "one"}, {"rounds": "1"}, [row, spoiled], ["bert is skipped"])
    targets = [Target("echo", "throughput", REFERENCE, at_least=4)]
    text = report.text(targets)
    assert "Processor: one" in text
    assert "9.00 (9.00-9.00)" in text
    assert ">= 4.00  9.00      ok" in text
    assert f"INVALID resnet, throughput: {OURS} had errors: 7 timeout" in text
    assert text.endswith("bert is skipped\n")
    kept = json.loads(report.json(targets))
    assert kept["rows"][0]["ratio"] == {REFERENCE: 9, BARE: 0.9}
    assert kept["rows"][1]["errors"] == {OURS: {"timeout": 7}}
    assert kept["targets"][0]["verdict"] == "ok"
