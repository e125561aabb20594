"""What the configuration, the kernel and the server's user say about confining models."""

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torchkeep.frontend.worker_users import (
    SYS_NICE,
    WorkerUsers,
    has_capability,
    ids_in_use,
    obstacle_to_own_users,
)
from torchkeep.runtime.kernel import KernelLayers, kernel_layers


@dataclass(frozen=True, slots=True)
class SandboxPolicy:
    """How all models of a server are confined."""

    level: str = ""  # off, standard or strict; empty: strict for a sealed model, else standard
    allows_network: bool = False  # to a strictly confined model that asks for it
    handler_log: str = ""  # console, memory or drop; empty: memory in strict, else console
    hidden: Sequence[Path] = ()  # in standard: keys, whoever owns them
    areas: Sequence[Path] = ()  # where models are unpacked: hidden from workers of one user
    layers: KernelLayers = field(default_factory=kernel_layers)
    users: WorkerUsers | None = None  # where the server is root and can give them
    warnings: Sequence[str] = ()

    def facts(self) -> dict[str, Any]:
        """What a client may want to know of it, and a digest of the configuration covers."""
        return {
            "level": self.level or "strict for sealed models, else standard",
            "allows_network": self.allows_network,
            "handler_log": self.handler_log or "memory in strict, else console",
            "kernel": self.layers.describe(),
            "has_own_users": self.users is not None,
        }

    @property
    def may_pin(self) -> bool:
        """Whether the frontend may choose the cores of a worker."""
        return self.users is None or has_capability(SYS_NICE)


def sandbox_policy(
    level: str,
    allows_network: bool,
    handler_log: str,
    hidden: Sequence[Path],
    *,
    has_key_service: bool = False,
) -> SandboxPolicy:
    """The policy here and now, with a warning for each layer that it has to do without.

    `has_key_service`: keys come over the network, from what asks nobody on this machine who he
    is. Unless the level is given, no model gets near it then, sealed or not.
    """
    layers = kernel_layers()
    if has_key_service and not level:
        level = "strict"
    if level == "off":
        return SandboxPolicy(level, allows_network, handler_log, hidden, layers=layers)
    warnings = []
    if level == "strict" and layers.missing_for_strict:
        warnings.append(f"no worker will start: {layers.missing_for_strict}")
    elif layers.missing_for_standard:
        warnings.append(f"sandbox: {layers.missing_for_standard}")
    users = None
    if os.geteuid() == 0:
        if obstacle := obstacle_to_own_users():
            warnings.append(f"sandbox: workers stay root, without capabilities: {obstacle}")
        else:
            users = WorkerUsers(ids_in_use())
    policy = SandboxPolicy(
        level,
        allows_network,
        handler_log,
        hidden,
        layers=layers,
        users=users,
        warnings=warnings,
    )
    if not policy.may_pin:
        warnings.append("sandbox: workers are not pinned: root lacks the capability SYS_NICE")
    return policy
