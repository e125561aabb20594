"""The list of deliberate differences: every entry is shown, and the page is made from it."""

import ast
from pathlib import Path

import pytest

from conformance import documents
from conformance.differences import DIFFERENCES, Difference
from conformance.scenarios import SCENARIOS

ROOT = Path(__file__).resolve().parent.parent.parent
KNOWN = {difference.id for difference in DIFFERENCES}


def test_every_difference_has_its_own_id() -> None:
    assert len(KNOWN) == len(DIFFERENCES)


@pytest.mark.parametrize("difference", DIFFERENCES, ids=lambda difference: difference.id)
def test_every_difference_is_shown_by_a_case_or_a_test(difference: Difference) -> None:
    assert documents.cases_of(difference) or difference.tests
    for test in difference.tests:
        file, _, name = test.partition("::")
        module = ast.parse((ROOT / file).read_text())
        assert name in {
            node.name
            for node in module.body
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        }, test


def test_deliberate_cases_name_a_difference() -> None:
    named = {case.deliberate for one in SCENARIOS for case in one.asked} - {None}
    assert named <= KNOWN


def test_the_page_is_current() -> None:
    assert documents.PAGE.read_text() == documents.page(), "make conformance-docs"
