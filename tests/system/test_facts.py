"""Our answers beside the recorded ones of the real TorchServe 0.12 (facts.json).

The cases are those of `make conformance`, which asks the real one again; what differs on purpose
is listed in conformance/differences.py.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from conformance.archives import build_archives
from conformance.asker import take_all
from conformance.case import Scenario
from conformance.compare import unwanted
from conformance.scenarios import SCENARIOS

FACTS = json.loads(Path(__file__).with_name("facts.json").read_text())


def test_every_case_has_a_fact() -> None:
    asked = {scenario.name: {case.name for case in scenario.asked} for scenario in SCENARIOS}
    assert asked == {name: set(answers) for name, answers in FACTS.items()}


@dataclass
class Subject:
    """A server of ours, with the directory of its logs."""

    server: Any
    logs: Path

    def __getattr__(self, name: str) -> Any:
        return getattr(self.server, name)


def as_parameter(scenario: Scenario) -> Any:
    marks = [pytest.mark.torch] if scenario.needs_torch else []
    return pytest.param(scenario, id=scenario.name.replace(" ", "-"), marks=marks)


@pytest.mark.parametrize("scenario", [as_parameter(scenario) for scenario in SCENARIOS])
def test_answers_are_those_of_torchserve(
    scenario: Scenario, server_factory: Callable[..., Any], tmp_path: Path
) -> None:
    build_archives(tmp_path / "store", scenario.archives)
    logs = tmp_path / "logs"

    def start(restart: Any = None) -> Subject:
        server = server_factory(
            models=list(scenario.models),
            store=tmp_path / "store",
            config=scenario.config,
            args=list(scenario.args),
            env={"LOG_LOCATION": str(logs), "METRICS_LOCATION": str(logs), **scenario.environment},
            asks_for_keys=scenario.asks_for_keys,
            snapshots=scenario.has_snapshots,
            files=scenario.files,
            restart=restart,
        )
        server.wait_until_ready(*scenario.model_names)
        return Subject(server, logs)

    first = start()

    def restarted() -> Subject:
        first.server.stop()
        return start(restart=first.server)

    answers = take_all(scenario.cases, first, restarted)
    found = [
        f"{case.name}: {difference}"
        for case in scenario.asked
        for difference in unwanted(case, FACTS[scenario.name][case.name], answers[case.name])
    ]
    assert not found, "\n" + "\n".join(found)
