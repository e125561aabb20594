"""What came of verifying a server: its checks, in the order they were made."""

from dataclasses import dataclass, field

from torchkeep.runtime.claims import Claims
from torchkeep.runtime.quote import Quote


@dataclass(frozen=True, slots=True)
class Check:
    """One check; `text` is a line that explains it, whether it holds or not."""

    name: str
    holds: bool
    text: str


@dataclass(slots=True)
class Verdict:
    """All checks that were made. The rest is what the evidence says, true only if all hold."""

    checks: list[Check] = field(default_factory=list)
    quote: Quote | None = None
    claims: Claims | None = None
    public_key: bytes = b""  # SubjectPublicKeyInfo of the attested key

    def check(self, name: str, holds: bool, yes: str, no: str = "") -> bool:
        """Note a check, explained by `yes` or `no`; returns whether it holds.

        Texts may quote the server: what could do something to a terminal is replaced.
        """
        text = "".join(char if char.isprintable() else "?" for char in (yes if holds else no))
        self.checks.append(Check(name, holds, text))
        return holds

    @property
    def holds(self) -> bool:
        return bool(self.checks) and not self.failed

    @property
    def failed(self) -> list[Check]:
        return [check for check in self.checks if not check.holds]

    @property
    def is_simulated(self) -> bool:
        return self.claims is not None and self.claims.tee == "simulated"
