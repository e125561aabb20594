"""The kinds of weights that only we load answer as those that TorchServe loads; and profiles.

What TorchServe answered for the same model as a state dict is in facts.json.
"""

import json
import pstats
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from conformance.archives import build_archives
from conformance.cases.weights import ROWS
from conformance.compare import TOLERANCE

pytestmark = pytest.mark.torch

FACTS = json.loads(Path(__file__).with_name("facts.json").read_text())
PROFILE = Path("/tmp/tsPythonProfile.prof")
TRACES = Path("/tmp/pytorch_profiler/rows_safetensors")


def ask(server: Any, model: str, row: list[float]) -> list[float]:
    headers = {"Content-Type": "application/json"}
    status, _, body = server.request("POST", f"/predictions/{model}", json.dumps(row), headers)
    assert status == 200, body
    answer: list[float] = json.loads(body)
    return answer


def assert_answers_as_torchserve(server: Any, model: str) -> None:
    for row in ROWS:
        known = json.loads(FACTS["weights"][f"rows_state {row}"]["text"])
        assert ask(server, model, row) == pytest.approx(known, abs=TOLERANCE)


def test_safetensors_and_exported_programs_answer_as_the_state_dict(
    server_factory: Callable[..., Any], tmp_path: Path, poll: Callable[..., Any]
) -> None:
    """With both profilers, which leave what they found where TorchServe's do."""
    models = ["rows_safetensors", "rows_exported"]
    build_archives(tmp_path / "store", models)
    shutil.rmtree(TRACES, ignore_errors=True)
    server = server_factory(
        [f"{model}.mar" for model in models],
        tmp_path / "store",
        {"sandbox": "off"},
        env={"ENABLE_TORCH_PROFILER": "1", "TS_BENCHMARK": "true"},
    )
    server.wait_until_ready(*models)
    try:
        assert_answers_as_torchserve(server, "rows_exported")
        assert_answers_as_torchserve(server, "rows_safetensors")

        def is_profiled() -> bool:
            try:
                profile = pstats.Stats(str(PROFILE))
            except (OSError, EOFError, ValueError):  # somebody else's, half written
                return False
            known = profile.stats  # type: ignore[attr-defined]
            return any(Path(file).name == "plain_rows.py" for file, _, _ in known)

        poll(is_profiled, "the profile knows the handler")
        (trace, *_) = TRACES.glob("*.pt.trace.json")
        assert "aten::linear" in trace.read_text()
    finally:
        shutil.rmtree(TRACES, ignore_errors=True)
        PROFILE.unlink(missing_ok=True)


@pytest.mark.long
@pytest.mark.timeout(600)
def test_a_package_of_aotinductor_answers_as_the_state_dict(
    server_factory: Callable[..., Any], tmp_path: Path
) -> None:
    if shutil.which("g++") is None:
        pytest.skip("AOTInductor needs g++")
    build_archives(tmp_path / "store", ["rows_pt2"])
    server = server_factory(["rows_pt2.mar"], tmp_path / "store")
    server.wait_until_ready("rows_pt2")
    assert_answers_as_torchserve(server, "rows_pt2")
