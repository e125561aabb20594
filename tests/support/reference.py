"""The real TorchServe beside ours, for tests that ask both the same.

It is there where TORCHKEEP_REFERENCE names its virtual environment and Java is on PATH.
`as_parameters` makes a test of ours alone, and one of both that is skipped where it is not.
"""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from bench.servers import Product
from conformance.archives import build_archives
from conformance.case import Scenario
from conformance.servers import THEIRS, Server

ARCHIVER = "torch-model-archiver==0.12.0"


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


def make_real_archiver(place: Path) -> Path:
    """An environment with the real torch-model-archiver, made in `place` if none is named."""
    named = os.environ.get("TORCHKEEP_REFERENCE")
    if named:
        return Path(named)
    subprocess.run([sys.executable, "-m", "venv", place], check=True)
    install = [str(place / "bin" / "python"), "-m", "pip", "--disable-pip-version-check", "install"]
    done = subprocess.run(
        [*install, "--quiet", ARCHIVER], capture_output=True, text=True, check=False
    )
    if done.returncode:
        pytest.skip(f"{ARCHIVER} cannot be installed here: {done.stderr.strip()[-300:]}")
    return place


@contextmanager
def real_torchserve(
    archives: tuple[str, ...], models: tuple[str, ...], home: Path, **config: str
) -> Iterator[Bases]:
    """One that serves these archives of conformance/archives.py, from `home`/store."""
    scenario = Scenario("reference", archives, [], config=config, models=models)
    build_archives(home / "store", archives)
    product = Product(THEIRS, Path(os.environ["TORCHKEEP_REFERENCE"]) / "bin" / "torchserve")
    server = Server(product, scenario, home, files="")
    try:
        server.start()
        yield Bases(server.inference, server.management, server.metrics)
    finally:
        server.stop()
