"""Torchkeep beside the real TorchServe: `make conformance`. See docs/conformance.md."""

import argparse
import shutil
import subprocess
import sys
import time
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory

from bench.reference import ReferenceMissing, java_missing, reference
from bench.servers import Product
from conformance.archives import build_archives
from conformance.case import Case, Scenario, Step
from conformance.comparison import ScenarioResult, Verdict, compare
from conformance.packages import why_no_packages
from conformance.report import Report
from conformance.scenarios import SCENARIOS
from conformance.servers import OURS, THEIRS

ROOT = Path(__file__).resolve().parent.parent


def main(argv: list[str] | None = None) -> int:
    options = parse_options(argv)
    if options.list:
        say("\n".join(f"{scenario.name} ({len(scenario.asked)} cases)" for scenario in SCENARIOS))
        return 0
    scenarios = chosen(options.only)
    if not scenarios:
        say(f"No scenario has {' or '.join(options.only)} in its name; --list names them all")
        return 1
    if missing := java_missing():
        say(missing)
        return 1
    build_dir: Path = options.build_dir.resolve()
    build_dir.mkdir(parents=True, exist_ok=True)
    try:
        environment = reference(options.reference, ROOT / "build")
    except ReferenceMissing as error:
        say(str(error))
        return 1
    theirs = Product(THEIRS, environment / "bin" / "torchserve")
    ours = Product(OURS, Path(sys.executable).parent / "torchserve")
    report = run(runnable(scenarios, environment), ours, theirs)
    (build_dir / "report.txt").write_text(report.text())
    (build_dir / "report.json").write_text(report.json())
    say(f"\n{report.text()}\nKept in {build_dir}: report.txt, and all answers in report.json")
    return 0 if report.is_good else 1


def parse_options(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="conformance.run", description=__doc__)
    parser.add_argument("--reference", type=Path, help="a virtual environment with TorchServe")
    parser.add_argument(
        "--only",
        nargs="+",
        default=[],
        metavar="NAME",
        help="run the scenarios that have one of these in their names",
    )
    parser.add_argument("--list", action="store_true", help="name the scenarios, and end")
    parser.add_argument("--build-dir", type=Path, default=ROOT / "build" / "conformance")
    return parser.parse_args(argv)


def chosen(names: list[str]) -> list[Scenario]:
    """The scenarios with one of these in their names, all where none is given."""
    return [
        scenario
        for scenario in SCENARIOS
        if not names or any(name in scenario.name for name in names)
    ]


def runnable(scenarios: list[Scenario], environment: Path) -> list[Scenario]:
    """Those that need nothing that is not installed; says which are left out, and why."""
    python = str(environment / "bin" / "python")
    modules = dict.fromkeys(name for one in scenarios for name in _needed(one))
    code = (
        "import importlib.util, sys\n"
        "print(*[name for name in sys.argv[1:] if not importlib.util.find_spec(name)])"
    )
    found = subprocess.run([python, "-c", code, *modules], capture_output=True, text=True)
    theirs = set(found.stdout.split())
    ours = {name for one in scenarios for name in _needed_of_us(one) if _is_missing(name)}
    left_out = [one for one in scenarios if theirs & _needed(one) or ours & _needed_of_us(one)]
    for scenario in left_out:
        lacking = [f"{name} here" for name in sorted(ours & _needed_of_us(scenario))]
        lacking += [f"{name} in {environment}" for name in sorted(theirs & _needed(scenario))]
        say(f"Left out, because it needs {' and '.join(lacking)}: {scenario.name}")
    kept = [scenario for scenario in scenarios if scenario not in left_out]
    if any(scenario.needs_packages for scenario in kept) and (reason := why_no_packages()):
        say(f"Left out, because nothing comes from PyPI: handlers of packages ({reason})")
        kept = [scenario for scenario in kept if not scenario.needs_packages]
    if find_spec("captum") is not None:
        return kept
    if any(case.needs_captum for scenario in kept for case in scenario.asked):
        say("Left out, because ours needs captum for them: explanations by captum")
    return [replace(one, cases=[s for s in one.cases if not _explains(s)]) for one in kept]


def _needed(scenario: Scenario) -> set[str]:
    """Modules that TorchServe's environment must have."""
    return {*scenario.needs, *(["captum"] if scenario.needs_captum else [])}


def _needed_of_us(scenario: Scenario) -> set[str]:
    """Modules and programs that must be here."""
    return {*scenario.needs, *scenario.programs, *(["torch"] if scenario.needs_torch else [])}


def _is_missing(name: str) -> bool:
    return find_spec(name) is None and shutil.which(name) is None


def _explains(step: Step) -> bool:
    return isinstance(step, Case) and step.needs_captum


def run(scenarios: list[Scenario], ours: Product, theirs: Product) -> Report:
    """Compare scenario by scenario, with a line about each."""
    needed = dict.fromkeys(name for scenario in scenarios for name in scenario.needed)
    with TemporaryDirectory(prefix="conformance-") as directory:
        return _run_all(scenarios, ours, theirs, build_archives(Path(directory), needed))


def _run_all(
    scenarios: list[Scenario], ours: Product, theirs: Product, archives: dict[str, Path]
) -> Report:
    report = Report()
    for number, scenario in enumerate(scenarios, 1):
        started = time.monotonic()
        result = compare(scenario, ours, theirs, archives)
        report.results.append(result)
        say(progress(result, f"[{number}/{len(scenarios)}]", time.monotonic() - started))
    return report


def progress(result: ScenarioResult, place: str, seconds: float) -> str:
    """One line about a scenario, when it is done."""
    name, count = result.scenario.name, len(result.cases)
    if result.failure:
        return f"{place} {name}: could not run: {result.failure}"
    words = [f"{result.count(Verdict.AGREES)} of {count} cases agree"]
    if deliberate := result.count(Verdict.DELIBERATE):
        words.append(f"{deliberate} differ on purpose")
    if differ := result.count(Verdict.DIFFERS):
        words.append(f"{differ} DIFFER")
    return f"{place} {name}: {', '.join(words)} ({seconds:.0f} s)"


def say(text: str) -> None:
    print(text, flush=True)  # noqa: T201


if __name__ == "__main__":
    sys.exit(main())
