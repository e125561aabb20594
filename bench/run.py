"""Torchkeep beside the real TorchServe, in one run: `make bench`. See bench/README.md."""

import argparse
import sys
import time
from pathlib import Path

from bench import archives, machine
from bench.bare_loop import BareLoopFailed
from bench.cases import TARGETS, AnswersDiffer, Bench, CaseSkipped, Rounds
from bench.load import LoadFailed
from bench.reference import ReferenceMissing, missing_programs, reference
from bench.report import OURS, REFERENCE, Report
from bench.servers import Product, ServerFailed

ROOT = Path(__file__).resolve().parent.parent
CASES = ("echo", "echo_unset", "resnet_script", "resnet_eager", "bert", "start")


def main(argv: list[str] | None = None) -> int:
    options = parse_options(argv)
    if missing := missing_programs():
        say("\n".join(missing))
        return 1
    build_dir: Path = options.build_dir.resolve()
    build_dir.mkdir(parents=True, exist_ok=True)
    try:
        theirs = reference(options.reference, ROOT / "build") / "bin"
    except ReferenceMissing as error:
        say(str(error))
        return 1
    if options.transformers:
        sys.path.append(options.transformers)  # weights are made in this process
    ours = Path(sys.executable).parent
    report = Report(
        machine.describe(ROOT, ours / "python", theirs / "python"),
        {name: str(value) for name, value in vars(options).items()},
    )
    bench = Bench(
        products=(Product(OURS, ours / "torchserve"), Product(REFERENCE, theirs / "torchserve")),
        build_dir=build_dir,
        store=archives.model_store(build_dir),
        rounds=Rounds(options.rounds, options.seconds, options.scale_rounds, options.start_rounds),
        transformers=options.transformers,
        say=say,
    )
    started = time.monotonic()
    are_complete = run_cases(bench, options.cases, report)
    report.notes.append(f"The run took {(time.monotonic() - started) / 60:.0f} minutes.")
    publish(report, build_dir)
    return 0 if are_complete else 1


def parse_options(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="bench.run", description=__doc__)
    defaults = Rounds()
    parser.add_argument("--reference", type=Path, help="a virtual environment with TorchServe")
    parser.add_argument("--transformers", default="", help="a directory that holds transformers")
    parser.add_argument(
        "--cases",
        nargs="+",
        choices=CASES,
        default=CASES,
        metavar="CASE",
        help=f"of {', '.join(CASES)}",
    )
    for name, default, meaning in (
        ("--rounds", defaults.load, "rounds of load for each server"),
        ("--seconds", defaults.load_s, "length of such a round"),
        ("--scale-rounds", defaults.scale, "how often each server gets one more worker"),
        ("--start-rounds", defaults.start, "how often each server is started"),
    ):
        text = f"{meaning} ({default})"
        parser.add_argument(name, type=int, default=default, metavar="N", help=text)
    parser.add_argument("--build-dir", type=Path, default=ROOT / "build" / "bench")
    return parser.parse_args(argv)


def run_cases(bench: Bench, names: list[str], report: Report) -> bool:
    """Fill the report. A case that cannot run, or broke, is a note in it; False if any broke."""
    are_complete = True
    for name in names:
        try:
            for row in getattr(bench, name)():
                report.rows.append(row)
        except CaseSkipped as reason:
            report.notes.append(str(reason))
        except (ServerFailed, LoadFailed, BareLoopFailed, AnswersDiffer) as error:
            report.notes.append(f"{name} broke off: {error}")
            are_complete = False
    return are_complete


def publish(report: Report, build_dir: Path) -> None:
    text = report.text(TARGETS)
    (build_dir / "report.txt").write_text(text)
    (build_dir / "report.json").write_text(report.json(TARGETS))
    say(f"\n{text}\nKept in {build_dir}: report.txt, report.json")


def say(text: str) -> None:
    print(text, flush=True)  # noqa: T201


if __name__ == "__main__":
    sys.exit(main())
