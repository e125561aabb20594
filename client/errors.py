"""What can go wrong in a user's own process, before and after a server is trusted."""

from torchkeep.client.verdict import Verdict
from torchkeep.runtime.errors import ServingError


class PolicyError(ServingError):
    """The policy cannot be used. The message names file, key and what was expected."""


class CollateralError(ServingError):
    """There is no collateral to judge a quote by."""


class InitdataError(ServingError):
    """The file is no initdata of Confidential Containers."""


class Unreachable(ServingError):
    """The server shows no evidence: nobody answers, or not as an attested server does."""


class NotVerified(ServingError):
    """The server is not what the policy asks for. Nothing of the request was sent."""

    def __init__(self, url: str, verdict: Verdict) -> None:
        failed = "; ".join(f"{check.name}: {check.text}" for check in verdict.failed)
        super().__init__(f"{url} is not verified, so nothing was sent. {failed}")
        self.verdict = verdict


class KeyChanged(ServingError):
    """A new connection met another key than the attested one. It was closed before any request."""
