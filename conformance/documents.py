"""docs/differences.md and tests/handlers/README.md, made from lists: `make conformance-docs`."""

from pathlib import Path

from conformance import inventory
from conformance.differences import GROUPS, Difference
from conformance.scenarios import SCENARIOS
from conformance.source import HANDLERS

PAGE = Path(__file__).resolve().parent.parent / "docs" / "differences.md"
INVENTORY = HANDLERS / "README.md"
HEAD = """# What differs from TorchServe on purpose

Everything else is as TorchServe 0.12 does it; whatever is not, and does not stand here, is a bug.
`make conformance` asks both servers the same and finds these differences and no others:
[conformance.md](conformance.md). The descriptions in OpenAPI documents are in words of our own.
This page is made from `conformance/differences.py` by `make conformance-docs`.
"""
CASES_SHOWN = 3


def page() -> str:
    parts = [HEAD]
    for group in GROUPS:
        parts.append(f"\n## {group.title}\n")
        parts += [_entry(difference) for difference in group.differences]
    return "".join(parts)


def _entry(difference: Difference) -> str:
    return (
        f"\n### {difference.id}\n\n"
        f"- TorchServe: {difference.theirs}.\n"
        f"- Torchkeep: {difference.ours}.\n"
        f"- {difference.why}.\n"
        f"- Shown by {_proof(difference)}.\n"
    )


def cases_of(difference: Difference) -> list[str]:
    """Scenario and case of each case that shows this difference."""
    return [
        f"{scenario.name}: {case.name}"
        for scenario in SCENARIOS
        for case in scenario.asked
        if case.deliberate == difference.id
    ]


def _proof(difference: Difference) -> str:
    cases = cases_of(difference)
    shown = [f"case *{name}*" for name in cases[:CASES_SHOWN]]
    if len(cases) > CASES_SHOWN:
        shown[-1] += f" and {len(cases) - CASES_SHOWN} more"
    return ", ".join([*shown, *(f"`{test}`" for test in difference.tests)])


if __name__ == "__main__":
    PAGE.write_text(page())
    INVENTORY.write_text(inventory.page())
