"""Both products, asked the same: what they answered, and what of it agrees."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

from bench.servers import Product, ServerFailed
from conformance.asker import take_all
from conformance.case import Case, Scenario
from conformance.compare import Fact, differences, unwanted
from conformance.servers import restarted, running


class Verdict(StrEnum):
    AGREES = "agrees"
    DELIBERATE = "deliberate"
    DIFFERS = "differs"


@dataclass(frozen=True)
class CaseResult:
    """What both answered to one case."""

    case: Case
    theirs: Fact
    ours: Fact

    @property
    def found(self) -> list[str]:
        """Each difference that counts; of a deliberate one only what is not on purpose."""
        return unwanted(self.case, self.theirs, self.ours)

    @property
    def verdict(self) -> Verdict:
        if self.found:
            return Verdict.DIFFERS
        if self.case.deliberate and differences(self.case, self.theirs, self.ours):
            return Verdict.DELIBERATE
        return Verdict.AGREES


@dataclass(frozen=True)
class ScenarioResult:
    """All cases of a scenario, or why they could not be asked."""

    scenario: Scenario
    cases: list[CaseResult] = field(default_factory=list)
    failure: str | None = None

    def count(self, verdict: Verdict) -> int:
        return sum(result.verdict is verdict for result in self.cases)

    @property
    def is_good(self) -> bool:
        return self.failure is None and not self.count(Verdict.DIFFERS)


def compare(
    scenario: Scenario, ours: Product, theirs: Product, archives: dict[str, Path]
) -> ScenarioResult:
    """Start both, take every step to both, stop both."""
    try:
        with ThreadPoolExecutor(2) as askers:
            pending = [
                askers.submit(_answers, product, scenario, archives) for product in (ours, theirs)
            ]
            our_facts, their_facts = (each.result() for each in pending)
    except ServerFailed as error:
        return ScenarioResult(scenario, failure=str(error))
    return ScenarioResult(
        scenario,
        [CaseResult(case, their_facts[case.name], our_facts[case.name]) for case in scenario.asked],
    )


def _answers(product: Product, scenario: Scenario, archives: dict[str, Path]) -> dict[str, Fact]:
    with running(product, scenario, archives) as server:
        return take_all(scenario.cases, server, restart=lambda: restarted(server))
