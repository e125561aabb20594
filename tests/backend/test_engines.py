"""The same answers from every engine, on ResNet-18, a BERT classifier and the digits.

Each runs in a process of its own, as importing IPEX changes torch. TORCHKEEP_OTHER_PYTHON
names a Python with another torch and with torchkeep, to be compared as well:

    TORCHKEEP_OTHER_PYTHON=other/bin/python .venv/bin/python -m pytest tests/backend/test_engines.py
"""

import json
import os
import subprocess
import sys
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from uncovered import uncovered_environment

# Those of one tuple are asked in one process. IPEX takes ten seconds for the first.
QUICK, SLOW = ("resnet18_script", "bert", "digits"), ("resnet18",)
NETWORKS = (*QUICK, *(pytest.param(name, marks=pytest.mark.long) for name in SLOW))
SCRIPT = Path(__file__).parent / "engine_answers.py"
OTHER = os.environ.get("TORCHKEEP_OTHER_PYTHON", "")
needs_ipex = pytest.mark.skipif(
    find_spec("intel_extension_for_pytorch") is None, reason="IPEX is not installed"
)
needs_other = pytest.mark.skipif(not OTHER, reason="TORCHKEEP_OTHER_PYTHON is not set")

pytestmark = pytest.mark.torch


@cache
def all_answers(engine: str, dtype: str, python: str, networks: tuple[str, ...]) -> Any:
    command = [python, str(SCRIPT), engine, dtype, *networks]
    environment = uncovered_environment()
    run = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    return json.loads(run.stdout.splitlines()[-1])


def answers(network: str, engine: str, dtype: str = "float32", python: str = sys.executable) -> Any:
    networks = QUICK if network in QUICK else SLOW
    return all_answers(engine, dtype, python, networks)[network]


def assert_alike(one: list[float], two: list[float], tolerance: float) -> None:
    scale = max(map(abs, one))
    assert max(abs(a - b) for a, b in zip(one, two, strict=True)) <= tolerance * scale


@pytest.mark.parametrize(
    ("engine", "python"),
    [
        ("torch", sys.executable),
        pytest.param("ipex", sys.executable, marks=needs_ipex),
        pytest.param("eager", OTHER, marks=needs_other),
        pytest.param("torch", OTHER, marks=needs_other),
    ],
    ids=["torch", "ipex", "other eager", "other torch"],
)
@pytest.mark.parametrize("network", NETWORKS)
def test_every_engine_answers_alike(network: str, engine: str, python: str) -> None:
    own = answers(network, "eager")
    found = answers(network, engine, python=python)
    assert found["is_used"] is (engine != "eager")
    assert found["difference"] <= 1e-4
    assert_alike(own["answer"], found["answer"], 1e-4)
    assert_alike(own["batch"], found["batch"], 1e-4)


@pytest.mark.parametrize("engine", ["torch", pytest.param("ipex", marks=needs_ipex)])
@pytest.mark.parametrize("network", NETWORKS)
def test_bfloat16_stays_within_its_tolerance(network: str, engine: str) -> None:
    found = answers(network, engine, "bfloat16")
    assert found["is_used"]
    assert found["difference"] <= 2e-2
    assert found["probability_difference"] <= 1e-2
