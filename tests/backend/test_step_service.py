"""Continuous batching: what a step's results become."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from torchkeep.backend.step_service import StepService
from torchkeep.runtime.messages import Chunk, InputParameter, Load, Prediction, RequestInput

HANDLER = """
def handle(data, context):
    if data is None:
        return None
    CRITERIA
    return [f"{len(row)} parameters" for row in data]
"""

Asker = Callable[[str], tuple[Any, list[Any]]]


@pytest.fixture
def ask(tmp_path: Path) -> Asker:
    """One step of two requests, the first of which the worker knows already."""

    def step(criteria: str) -> tuple[Any, list[Any]]:
        (tmp_path / "steps.py").write_text(HANDLER.replace("CRITERIA", criteria))
        load = Load("m", "1.0", str(tmp_path), "steps.py", "", 2, True, True, {}, way="steps")
        service = StepService.load(load)
        sent: list[Any] = []
        service.connect(sent.append)
        new = RequestInput("new", {}, [InputParameter("body", b"x")])
        return service.predict([RequestInput("known", {}, []), new]), sent

    return step


KNOWN, NEW = Prediction("known", b"0 parameters"), Prediction("new", b"1 parameters")


@pytest.mark.parametrize(
    ("criteria", "pieces", "finished"),
    [
        ("[lambda r: False, lambda r: False]", [KNOWN, NEW], []),
        ("[lambda r: True, lambda r: False]", [NEW], [KNOWN]),
        ("[lambda r: r == '0 parameters', lambda r: None]", [], [KNOWN, NEW]),
        ("[lambda r: False, lambda r: None]", [KNOWN], [NEW]),
        ("[lambda r: False]", [KNOWN], [NEW]),
        ("[]", [], [KNOWN, NEW]),
        ("None", [], [KNOWN, NEW]),
    ],
)
def test_a_criterion_says_what_becomes_of_each_answer(
    ask: Asker, criteria: str, pieces: list[Any], finished: list[Any]
) -> None:
    reply, sent = ask(f"context.stopping_criteria = {criteria}")
    assert (reply.status, reply.items) == (200, finished)
    assert sent == ([Chunk(200, "Prediction success", pieces)] if pieces else [])


@pytest.mark.parametrize(
    "statement",
    [
        pytest.param("context.stopping_criteria = [lambda r: 1 / 0, lambda r: True]", id="rule"),
        pytest.param("raise ValueError", id="handler"),
    ],
)
def test_a_step_that_fails_ends_all_its_answers(ask: Asker, statement: str) -> None:
    # TorchServe: a criterion that raises ends the worker
    reply, sent = ask(statement)
    assert (reply.status, reply.message, sent) == (503, "Prediction failed", [])
    assert [item.request_id for item in reply.items] == ["known", "new"]
