"""What can go wrong on the ground both processes share."""

from typing import Literal

ReleaseStep = Literal[
    "unreachable",
    "attestation refused",
    "policy denied",
    "resource missing",
    "wrong key",
    "not configured",
]


class ServingError(Exception):
    """The root of every error that Torchkeep raises on purpose."""


class ConfigError(ServingError):
    """The configuration cannot be used. The message names file, line, key and what was expected."""


class WireError(ServingError):
    """The peer sent a frame we cannot trust. The connection is over."""


class MessageError(ServingError):
    """A frame opened, but what it holds is no message of ours."""


class KeyReleaseError(ServingError):
    """A key was not released. `step` names what failed, `advice` what to do; neither a key."""

    def __init__(self, step: ReleaseStep, advice: str, *, is_temporary: bool = False) -> None:
        super().__init__(f"{step}. {advice}")
        self.step = step
        self.advice = advice
        self.is_temporary = is_temporary  # asking again later may help


class EvidenceError(ServingError):
    """The TEE gave no evidence. The text says who, why, and what to do."""

    def __init__(self, text: str, *, is_temporary: bool = False) -> None:
        super().__init__(text)
        self.is_temporary = is_temporary  # asking again later may help
