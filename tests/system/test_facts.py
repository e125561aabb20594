"""Our answers beside the recorded ones of the real TorchServe 0.12 (facts.json).

The cases are those of `make conformance`, which asks the real one again; what differs on purpose
is listed in conformance/differences.py. `make test-long` has the real torch-model-archiver pack
some of the archives, in an environment of its own.
"""

import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from reference import make_real_archiver

from bench.servers import free_ports
from conformance.archives import build_archives
from conformance.asker import take_all
from conformance.case import Scenario
from conformance.compare import differences, unwanted
from conformance.files import serving
from conformance.packages import why_no_packages
from conformance.scenarios import SCENARIOS

INSTALL_LIMIT_S = 1800  # of what archives list
COMPILE_LIMIT_S = 900  # of weights, when their archive is made and when they run
REMOVAL_LIMIT_S = 180.0
# An echo, TorchScript with labels, eager with a state dict, a class derived from BaseHandler,
# and handlers that fail in every way.
OF_THE_REAL_ARCHIVER = (
    "requests", "resnet", "entry points", "classes", "failures", "deaths", "archive forms"
)  # fmt: skip

FACTS = json.loads(Path(__file__).with_name("facts.json").read_text())


def test_every_case_has_a_fact() -> None:
    asked = {scenario.name: {case.name for case in scenario.asked} for scenario in SCENARIOS}
    assert asked == {name: set(answers) for name, answers in FACTS.items()}


@dataclass
class Subject:
    """A server of ours, with the directory of its logs."""

    server: Any
    logs: Path
    places: dict[str, str]

    def __getattr__(self, name: str) -> Any:
        return getattr(self.server, name)


@pytest.fixture
def files(tmp_path: Path) -> Iterator[str]:
    with serving(tmp_path) as address:
        yield address


@pytest.fixture(scope="module")
def real_archiver(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_real_archiver(tmp_path_factory.mktemp("archiver"))


def as_parameter(scenario: Scenario) -> Any:
    marks = [pytest.mark.torch] if scenario.needs_torch else []
    if scenario.is_long:
        marks += [pytest.mark.long, pytest.mark.timeout(COMPILE_LIMIT_S)]
    if scenario.needs_packages:
        marks.append(pytest.mark.timeout(INSTALL_LIMIT_S))
    missing = [name for name in scenario.needs if find_spec(name) is None]
    missing += [name for name in scenario.programs if shutil.which(name) is None]
    if missing:
        marks.append(pytest.mark.skip(reason=f"{' and '.join(missing)} is not installed"))
    return pytest.param(scenario, id=scenario.name.replace(" ", "-"), marks=marks)


@pytest.mark.parametrize("scenario", [as_parameter(scenario) for scenario in SCENARIOS])
def test_answers_are_those_of_torchserve(
    scenario: Scenario, server_factory: Callable[..., Any], tmp_path: Path, files: str
) -> None:
    if scenario.needs_packages and (reason := why_no_packages()):
        pytest.skip(reason)
    found = unlike_the_facts(scenario, server_factory, tmp_path, files)
    assert not found, "\n" + "\n".join(found)


@pytest.mark.long
@pytest.mark.parametrize(
    "scenario", [as_parameter(one) for one in SCENARIOS if one.name in OF_THE_REAL_ARCHIVER]
)
def test_archives_of_the_real_archiver_get_the_same_answers(
    scenario: Scenario,
    real_archiver: Path,
    server_factory: Callable[..., Any],
    tmp_path: Path,
    files: str,
) -> None:
    found = unlike_the_facts(scenario, server_factory, tmp_path, files, packed_by=real_archiver)
    assert not found, "\n" + "\n".join(found)


def unlike_the_facts(
    scenario: Scenario,
    server_factory: Callable[..., Any],
    tmp_path: Path,
    files: str,
    packed_by: Path | None = None,
) -> list[str]:
    """A line for each answer of ours that is not the recorded one."""
    build_archives(tmp_path / "store", scenario.archives, packed_by)
    build_archives(tmp_path / "elsewhere", scenario.elsewhere, packed_by)
    logs = tmp_path / "logs"
    config = dict(scenario.config)
    if scenario.shares_port:
        address = f"http://127.0.0.1:{free_ports(1)[0]}"
        config |= {"inference_address": address, "management_address": address}

    def start(restart: Any = None) -> Subject:
        server = server_factory(
            models=list(scenario.models),
            store=tmp_path / "store",
            config=config,
            args=list(scenario.args),
            env={"LOG_LOCATION": str(logs), "METRICS_LOCATION": str(logs), **scenario.environment},
            asks_for_keys=scenario.asks_for_keys,
            snapshots=scenario.has_snapshots,
            files=scenario.files,
            restart=restart,
        )
        if scenario.needs_packages:  # thousands of installed files are removed at the stop
            server.stop_deadline_s = REMOVAL_LIMIT_S
        server.inference = config.get("inference_address", server.inference)
        server.management = config.get("management_address", server.management)
        server.wait_until_ready(*scenario.model_names)
        return Subject(server, logs, {"files": files, "home": str(tmp_path)})

    subjects = [start()]

    def restarted() -> Subject:
        before = subjects[-1].server
        before.stop()
        subjects.append(start(restart=before))
        return subjects[-1]

    answers = take_all(scenario.cases, subjects[0], restarted)
    facts = FACTS[scenario.name]
    has_captum = find_spec("captum") is not None
    compared = [case for case in scenario.asked if has_captum or not case.needs_captum]
    found = [
        f"{case.name}: {difference}"
        for case in compared
        for difference in unwanted(case, facts[case.name], answers[case.name])
    ]
    found += [
        f"{case.name}: there is no difference any more: {case.deliberate}"
        for case in compared
        if case.deliberate and not differences(case, facts[case.name], answers[case.name])
    ]
    return found
