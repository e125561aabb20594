"""Ask the real TorchServe every case and write down what it answers: tests/system/facts.json.

    .venv/bin/python -m conformance.record REFERENCE_VENV [SCENARIO ...]

REFERENCE_VENV holds torchserve, torch-model-archiver, torch and torchvision; Java is on
PATH. Named scenarios are recorded anew, the others kept. Nothing is left behind.
"""

import json
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

from bench.servers import Product
from conformance.archives import build_archives
from conformance.asker import take_all
from conformance.case import Scenario
from conformance.compare import Fact
from conformance.scenarios import SCENARIOS
from conformance.servers import THEIRS, restarted, running

FACTS = Path(__file__).resolve().parent.parent / "tests" / "system" / "facts.json"


def main(reference: Path, names: list[str]) -> None:
    facts: dict[str, dict[str, Fact]] = {}
    if names and FACTS.exists():
        facts = json.loads(FACTS.read_text())
    for scenario in SCENARIOS:
        if names and scenario.name not in names:
            continue
        started = time.monotonic()
        with TemporaryDirectory() as scratch:
            archives = build_archives(Path(scratch), scenario.needed, packed_by=reference)
            facts[scenario.name] = record(scenario, reference, archives)
        write(facts)
        report(f"{scenario.name}: {len(scenario.cases)} steps, {time.monotonic() - started:.0f} s")


def record(scenario: Scenario, reference: Path, archives: dict[str, Path]) -> dict[str, Fact]:
    product = Product(THEIRS, reference / "bin" / "torchserve")
    with running(product, scenario, archives) as server:
        return take_all(
            scenario.cases,
            server,
            restart=lambda: restarted(server),
            report=lambda name, known: report(f"  {name}: {known['status']} {known['reason']}"),
        )


def write(facts: dict[str, dict[str, Fact]]) -> None:
    """One line per answer, so that a new recording shows its differences as lines."""
    scenarios = []
    for name, answers in facts.items():
        lines = [f"  {json.dumps(case)}: {json.dumps(known)}" for case, known in answers.items()]
        scenarios.append(f" {json.dumps(name)}: {{\n" + ",\n".join(lines) + "\n }")
    FACTS.write_text("{\n" + ",\n".join(scenarios) + "\n}\n")


def report(line: str) -> None:
    print(line, flush=True)  # noqa: T201


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
