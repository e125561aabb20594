"""What a run found: a table for people, and every answer for programs."""

import json
from collections import Counter
from dataclasses import dataclass, field

from conformance.comparison import CaseResult, ScenarioResult, Verdict
from conformance.differences import DIFFERENCES

SHOWN_OF_A_LINE = 600


@dataclass
class Report:
    """The results of a run, scenario by scenario."""

    results: list[ScenarioResult] = field(default_factory=list)

    @property
    def is_good(self) -> bool:
        """Nothing differs but what differs on purpose, and every scenario could run."""
        return all(result.is_good for result in self.results)

    def text(self) -> str:
        parts = [self._table(), self._deliberate(), self._differing(), self._summary()]
        return "\n\n".join(part for part in parts if part) + "\n"

    def json(self) -> str:
        scenarios = {
            result.scenario.name: {
                "failure": result.failure,
                "cases": {one.case.name: _as_json(one) for one in result.cases},
            }
            for result in self.results
        }
        return json.dumps(
            {"summary": self._summary(), "is_good": self.is_good, "scenarios": scenarios}, indent=1
        )

    def _table(self) -> str:
        width = max(len(result.scenario.name) for result in self.results)
        lines = [f"{'Scenario':{width}}  cases  agree  on purpose  differ"]
        for result in self.results:
            agree, deliberate, differ = (result.count(verdict) for verdict in Verdict)
            lines.append(
                f"{result.scenario.name:{width}}  {len(result.cases):5}  {agree:5}"
                f"  {deliberate or '':>10}  {differ or '':>6}"
                + ("  could not run" if result.failure else "")
            )
        return "\n".join(lines)

    def _deliberate(self) -> str:
        """Every deliberate difference that showed, with the cases that showed it."""
        shown: dict[str, list[str]] = {}
        for result in self.results:
            for one in result.cases:
                if one.verdict is Verdict.DELIBERATE and one.case.deliberate:
                    name = f"{result.scenario.name}: {one.case.name}"
                    shown.setdefault(one.case.deliberate, []).append(name)
        lines = ["Differences on purpose (docs/differences.md):"]
        for difference in DIFFERENCES:
            if names := shown.get(difference.id):
                lines += [f"  {difference.id}", f"    TorchServe: {difference.theirs}"]
                lines += [f"    Torchkeep:  {difference.ours}"]
                lines += [f"    shown by {name}" for name in names]
        return "\n".join(lines) if shown else ""

    def _differing(self) -> str:
        lines = []
        for result in self.results:
            if result.failure:
                lines += [f"  {result.scenario.name} could not run: {result.failure}"]
            for one in result.cases:
                if one.verdict is Verdict.DIFFERS:
                    lines.append(f"  {result.scenario.name}: {one.case.name}")
                    lines += [f"    {found[:SHOWN_OF_A_LINE]}" for found in one.found]
        return "\n".join(["Differences that are not on purpose:", *lines]) if lines else ""

    def _summary(self) -> str:
        counts = Counter(one.verdict for result in self.results for one in result.cases)
        failed = sum(result.failure is not None for result in self.results)
        return (
            f"{counts.total()} cases in {len(self.results)} scenarios:"
            f" {counts[Verdict.AGREES]} agree,"
            f" {counts[Verdict.DELIBERATE]} differ on purpose,"
            f" {counts[Verdict.DIFFERS]} differ otherwise"
            + (f"; {failed} scenarios could not run" if failed else "")
            + "."
        )


def _as_json(result: CaseResult) -> dict[str, object]:
    return {
        "verdict": result.verdict,
        "deliberate": result.case.deliberate,
        "found": result.found,
        "theirs": result.theirs,
        "ours": result.ours,
    }
