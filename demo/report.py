"""The lines of the walk-through: what was done, what was seen to happen, what that proves."""

import contextlib
import io
from collections.abc import Callable
from pathlib import Path

from digit_archive import say

from torchkeep.roof.commands import torchkeep as console_script

PASSED, REFUSED = "PASSED ", "REFUSED"
INDENT = " " * 9


class Refused(Exception):
    """What was tried did not go through; the text says who refused it, and in which words."""


class Report:
    """One line for each step, and below it what was seen. Nothing is taken for granted.

    `attempt` returns what was seen, or raises Refused. What should be refused must be so by the
    check that is named, whose word is in its message.
    """

    def __init__(self) -> None:
        self.steps = 0
        self.unexpected: list[str] = []

    def part(self, title: str) -> None:
        say(f"\n{title}")

    def passes(self, did: str, proves: str, attempt: Callable[[], str]) -> None:
        outcome, seen = _observed(attempt)
        self._tell(did, proves, outcome, seen)
        if outcome != PASSED:
            self._miss(did, "it should have passed")

    def refuses(self, did: str, proves: str, by: str, attempt: Callable[[], str]) -> None:
        outcome, seen = _observed(attempt)
        self._tell(did, proves, outcome, seen)
        if outcome != REFUSED or by not in seen:
            self._miss(did, f"it should have been refused, by {by!r}")

    def conclude(self) -> int:
        """The last line; returns the exit code."""
        if self.unexpected:
            say(f"\n{len(self.unexpected)} of {self.steps} steps did not end as they should:")
            for did in self.unexpected:
                say(f"  {did}")
            return 1
        say(f"\nAll {self.steps} steps ended as they should. The TEE was SIMULATED throughout.")
        return 0

    def _tell(self, did: str, proves: str, outcome: str, seen: str) -> None:
        self.steps += 1
        say(f"{outcome}  {did} → {proves}")
        for line in seen.splitlines():
            say(f"{INDENT}{line}")

    def _miss(self, did: str, what: str) -> None:
        say(f"{INDENT}NOT AS EXPECTED: {what}")
        self.unexpected.append(did)


def _observed(attempt: Callable[[], str]) -> tuple[str, str]:
    try:
        return PASSED, attempt()
    except Refused as refused:
        return REFUSED, str(refused)


def torchkeep(*arguments: object) -> str:
    """What the command prints; raises Refused with what it prints when it fails.

    It runs in this process, as its console script would run it in another.
    """
    said = io.StringIO()
    argv = [_shorter(one) if isinstance(one, Path) else str(one) for one in arguments]
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        try:
            console_script(argv)
        except SystemExit as end:
            status = end.code
    if status != 0:
        raise Refused(said.getvalue())
    return said.getvalue()


def _shorter(path: Path) -> str:
    """As somebody would type it who stands where the walk-through does."""
    return str(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path)
