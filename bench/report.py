"""What a run found: rows of measurements, the issue's targets over them, as text and JSON."""

import json
import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

OURS = "Torchkeep"
REFERENCE = "TorchServe"
BARE = "bare loop"

Verdict = Literal["ok", "below", "invalid", "not measured"]


@dataclass(frozen=True, slots=True)
class Series:
    """The same thing measured once a round. Noise only ever slows, so the spread is shown."""

    values: tuple[float, ...]

    def __post_init__(self) -> None:
        if not self.values:
            raise ValueError("a series needs a value")

    @property
    def median(self) -> float:
        return statistics.median(self.values)

    def __str__(self) -> str:
        return f"{number(self.median)} ({number(min(self.values))}-{number(max(self.values))})"


@dataclass(slots=True)
class Row:
    """One measure in one case, for everybody who was measured."""

    case: str
    measure: str
    unit: str
    series: dict[str, Series]
    errors: dict[str, dict[str, int]] = field(default_factory=dict)  # by who made them

    def ratio(self, over: str) -> float:
        """Ours over theirs, of the medians."""
        return self.series[OURS].median / self.series[over].median

    def ratios(self, over: str) -> Series:
        """The same round by round: neighbours in time had the same machine to themselves."""
        pairs = zip(self.series[OURS].values, self.series[over].values, strict=True)
        return Series(tuple(ours / theirs for ours, theirs in pairs))


@dataclass(frozen=True, slots=True)
class Target:
    """A claim: our median, or its ratio to another's, on the right side of a bound."""

    case: str
    measure: str
    over: str | None  # whose median it is a ratio to; None for our own figure
    at_least: float | None = None
    at_most: float | None = None

    def check(self, rows: Iterable[Row]) -> tuple[float | None, Verdict]:
        """What was measured, and whether it is enough."""
        for row in rows:
            if (row.case, row.measure) == (self.case, self.measure):
                break
        else:
            return None, "not measured"
        if row.errors:
            return None, "invalid"
        value = row.series[OURS].median if self.over is None else row.ratio(self.over)
        is_met = (self.at_least is None or value >= self.at_least) and (
            self.at_most is None or value <= self.at_most
        )
        return value, "ok" if is_met else "below"

    @property
    def bound(self) -> str:
        if self.at_least is not None:
            return f">= {number(self.at_least)}"
        return f"<= {number(self.at_most or 0)}"


@dataclass(slots=True)
class Report:
    """Everything that is printed and kept."""

    machine: dict[str, str]
    options: dict[str, Any]
    rows: list[Row] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def text(self, targets: Sequence[Target]) -> str:
        """The plain-text report: the machine, the rows, the targets, what was left out."""
        parts = ["\n".join(f"{name}: {value}" for name, value in self.machine.items())]
        parts.append(table(ROW_TITLES, [_cells(row) for row in self.rows]))
        parts.append(table(TARGET_TITLES, [_target_cells(one, self.rows) for one in targets]))
        errors = [_error_line(row, who) for row in self.rows for who in row.errors]
        parts += ["\n".join(lines) for lines in (errors, self.notes) if lines]
        return "\n\n".join(parts) + "\n"

    def json(self, targets: Sequence[Target]) -> str:
        content = {
            "machine": self.machine,
            "options": self.options,
            "rows": [_row_content(row) for row in self.rows],
            "targets": [_target_content(one, self.rows) for one in targets],
            "notes": self.notes,
        }
        return json.dumps(content, indent=2) + "\n"


ROW_TITLES = (
    "case",
    "measure",
    f"{OURS}: median (min-max)",
    REFERENCE,
    "ratio, of each round",
    BARE,
    "of it",
)
TARGET_TITLES = ("target", "measure", "against", "bound", "measured", "verdict")


def number(value: float) -> str:
    """Three significant digits, without an exponent."""
    if value == 0 or not math.isfinite(value):
        return f"{value:g}"
    decimals = max(0, 2 - math.floor(math.log10(abs(value))))
    return f"{value:.{decimals}f}"


def table(titles: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Columns as wide as their widest cell, two spaces apart."""
    columns = list(zip(titles, *rows, strict=True))
    widths = [max(map(len, column)) for column in columns]
    lines = [titles, ["-" * width for width in widths], *rows]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    )


def _cells(row: Row) -> list[str]:
    cells = [row.case, f"{row.measure}, {row.unit}", str(row.series[OURS])]
    for who in (REFERENCE, BARE):
        if who not in row.series:
            cells += ["", ""]
        elif row.errors:
            cells += [str(row.series[who]), "invalid"]
        else:
            per_round = row.ratios(who).values
            spread = f"({number(min(per_round))}-{number(max(per_round))})"
            cells += [str(row.series[who]), f"{number(row.ratio(who))} {spread}"]
    return cells


def _target_cells(target: Target, rows: Sequence[Row]) -> list[str]:
    value, verdict = target.check(rows)
    measured = "" if value is None else number(value)
    return [target.case, target.measure, target.over or "", target.bound, measured, verdict]


def _error_line(row: Row, who: str) -> str:
    counts = ", ".join(f"{count} {kind}" for kind, count in row.errors[who].items())
    return f"INVALID {row.case}, {row.measure}: {who} had errors: {counts}"


def _row_content(row: Row) -> dict[str, Any]:
    return {
        "case": row.case,
        "measure": row.measure,
        "unit": row.unit,
        "values": {who: list(series.values) for who, series in row.series.items()},
        "median": {who: series.median for who, series in row.series.items()},
        "ratio": {who: row.ratio(who) for who in row.series if who != OURS},
        "errors": row.errors,
    }


def _target_content(target: Target, rows: Sequence[Row]) -> dict[str, Any]:
    value, verdict = target.check(rows)
    return {
        "case": target.case,
        "measure": target.measure,
        "against": target.over,
        "bound": target.bound,
        "measured": value,
        "verdict": verdict,
    }
