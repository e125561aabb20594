"""The environment of a process whose coverage is not measured."""

import os


def uncovered_environment() -> dict[str, str]:
    """Ours, without what makes a new Python measure: for what torch does all the time in it.

    torch's tracers take many times as long where they are measured.
    """
    return {name: value for name, value in os.environ.items() if "COVERAGE" not in name}
