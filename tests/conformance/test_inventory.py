"""The list of archives: complete, and every archive has right answers from somewhere."""

import ast
from collections import Counter
from pathlib import Path

import pytest

from conformance import documents, inventory
from conformance.archives import SOURCES
from conformance.inventory import KINDS, OURS_ONLY

ROOT = Path(__file__).resolve().parent.parent.parent


def test_every_archive_is_listed_once() -> None:
    listed = Counter(name for kind in KINDS for name in kind.archives)
    assert listed == Counter(inventory.archives())


def test_whoever_has_no_answers_of_torchserve_says_why() -> None:
    """That each case has a fact is tests/system/test_facts.py's."""
    for archive in inventory.archives():
        known = inventory.recorded_in(archive) or inventory.differences_of(archive)
        assert bool(known) != (archive in OURS_ONLY), archive


@pytest.mark.parametrize("archive", OURS_ONLY)
def test_what_is_ours_only_is_asked_by_its_test(archive: str) -> None:
    file, _, name = OURS_ONLY[archive].test.partition("::")
    text = (ROOT / file).read_text()
    module = ast.parse(text)
    functions = {node.name for node in ast.walk(module) if isinstance(node, ast.FunctionDef)}
    assert name in functions
    assert f'"{archive}"' in text or f'"{archive}.mar"' in text


def test_there_are_forty_handlers_in_the_style_of_public_examples() -> None:
    examples = {name for kind in KINDS if kind.is_example for name in kind.archives}
    assert len({SOURCES[name].handler for name in examples}) >= 40


def test_the_page_is_current() -> None:
    assert documents.INVENTORY.read_text() == inventory.page(), "make conformance-docs"
