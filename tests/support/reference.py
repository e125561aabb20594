"""The real TorchServe beside ours, for tests that ask both the same.

It is there where TORCHKEEP_REFERENCE names its virtual environment and Java is on PATH.
`as_parameters` makes a test of ours alone, and one of both that is skipped where it is not.
"""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

SYSTEM_TESTS = Path(__file__).resolve().parent.parent / "system"


@dataclass(frozen=True)
class Bases:
    """Where the three APIs of one server are."""

    inference: str
    management: str
    metrics: str


def as_parameters() -> list[Any]:
    """False: ours alone; True: both."""
    missing = not os.environ.get("TORCHKEEP_REFERENCE")
    reason = "TORCHKEEP_REFERENCE names no environment with the real TorchServe"
    return [
        pytest.param(False, id="torchkeep"),
        pytest.param(True, id="both", marks=pytest.mark.skipif(missing, reason=reason)),
    ]


@contextmanager
def real_torchserve(
    archives: tuple[str, ...], models: tuple[str, ...], home: Path, **config: str
) -> Iterator[Bases]:
    """One that serves these archives of tests/system/archives.py."""
    sys.path.insert(0, str(SYSTEM_TESTS))  # they are neighbours of a script, and no package
    try:
        from archives import build_archives
        from cases import Scenario
        from record_facts import torchserve
    finally:
        sys.path.remove(str(SYSTEM_TESTS))
    scenario = Scenario("reference", archives, [], config=config, models=models)
    build_archives(home / "store", archives)
    environment = Path(os.environ["TORCHKEEP_REFERENCE"])
    with torchserve(environment, scenario, home) as (inference, management):
        lines = (home / "config.properties").read_text().splitlines()
        settings = dict(line.split("=", 1) for line in lines)
        yield Bases(inference, management, settings["metrics_address"])
