"""The program: what it says where it cannot run, and what its report holds."""

import json
import os
import sys
from pathlib import Path

import pytest

from bench.reference import java_missing
from bench.servers import Product
from conformance import run
from conformance.case import Case, Scenario
from conformance.compare import Fact
from conformance.comparison import CaseResult, ScenarioResult
from conformance.report import Report
from conformance.scenarios import SCENARIOS
from conformance.servers import OURS, THEIRS

ROOT = Path(__file__).resolve().parent.parent.parent
# These have at least 30 cases together, need no torch, and take a few seconds.
FEW = ("the only model", "cors", "no keys", "archive forms", "no model api", "custom metrics")


def test_without_java_it_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert run.main(["--build-dir", str(tmp_path)]) == 1
    assert "apt-get install openjdk-17-jre-headless" in capsys.readouterr().out


def test_scenarios_are_listed_and_chosen_by_name(capsys: pytest.CaptureFixture[str]) -> None:
    assert run.main(["--list"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == len(SCENARIOS)
    assert [scenario.name for scenario in run.chosen(["job ti", "cors"])] == ["cors", "job tickets"]
    assert run.main(["--only", "no such thing"]) == 1


def test_there_are_enough_cases() -> None:
    assert sum(len(scenario.asked) for scenario in SCENARIOS) >= 200


def test_the_report_tells_agreement_from_difference() -> None:
    def answered(status: int) -> Fact:
        return {"status": status, "reason": "", "headers": [], "is_closed": False}

    plain = Case("plain", "inference", "GET", "/")
    on_purpose = Case("purpose", "inference", "GET", "/", deliberate="no-path", our_status=405)
    result = ScenarioResult(
        Scenario("some", (), [plain]),
        [CaseResult(plain, answered(200), answered(200)),
         CaseResult(on_purpose, answered(500), answered(405))],
    )  # fmt: skip
    assert Report([result]).is_good
    assert (
        "2 cases in 1 scenarios: 1 agree, 1 differ on purpose, 0 differ" in Report([result]).text()
    )
    worse = ScenarioResult(
        Scenario("worse", (), [plain]), [CaseResult(plain, answered(200), answered(404))]
    )
    report = Report([result, worse])
    assert not report.is_good
    assert "worse: plain\n    status 404, TorchServe 200" in report.text()
    verdicts = json.loads(report.json())["scenarios"]["worse"]["cases"]["plain"]
    assert verdicts["verdict"] == "differs"
    assert not Report([ScenarioResult(Scenario("s", (), []), failure="did not start")]).is_good


def test_what_needs_something_that_is_not_installed_is_left_out_by_name(
    capsys: pytest.CaptureFixture[str],
) -> None:
    scenarios = [
        Scenario("all is there", (), [], needs=("json",)),
        Scenario("no module", (), [], needs=("no_such_module",)),
        Scenario("no program", (), [], programs=("no-such-program",)),
    ]
    environment = Path(sys.executable).parent.parent
    kept = run.runnable(scenarios, environment)
    assert [scenario.name for scenario in kept] == ["all is there"]
    said = capsys.readouterr().out
    assert (
        "Left out, because it needs no_such_module here and"
        f" no_such_module in {environment}: no module\n" in said
    )
    assert "Left out, because it needs no-such-program here: no program\n" in said


def reference() -> Path | None:
    """A TorchServe that is there already: nothing is downloaded by `make test`."""
    given = os.environ.get("TORCHKEEP_REFERENCE")
    directory = Path(given) if given else ROOT / "build" / "reference"
    return directory if (directory / "bin" / "torchserve").exists() else None


@pytest.mark.skipif(java_missing() is not None, reason=str(java_missing()))
@pytest.mark.skipif(reference() is None, reason="no TorchServe: set TORCHKEEP_REFERENCE")
def test_thirty_cases_agree_with_the_real_torchserve() -> None:
    directory = reference()
    assert directory is not None
    scenarios = [scenario for scenario in SCENARIOS if scenario.name.startswith(FEW)]
    ours = Product(OURS, Path(sys.executable).parent / "torchserve")
    report = run.run(scenarios, ours, Product(THEIRS, directory / "bin" / "torchserve"))
    assert sum(len(result.cases) for result in report.results) >= 30
    assert report.is_good, report.text()


@pytest.mark.long
@pytest.mark.timeout(3600)
@pytest.mark.skipif(java_missing() is not None, reason=str(java_missing()))
def test_everything_agrees_but_what_differs_on_purpose(tmp_path: Path) -> None:
    directory = reference()
    given = ["--reference", str(directory)] if directory else []
    assert run.main(["--build-dir", str(tmp_path), *given]) == 0, (
        tmp_path / "report.txt"
    ).read_text()
