"""What a start decides before it builds anything."""

import ssl
from collections.abc import Mapping
from dataclasses import dataclass

from torchkeep.frontend.metrics import Metrics
from torchkeep.frontend.sandbox_policy import SandboxPolicy
from torchkeep.frontend.thread_plan import ThreadPlan
from torchkeep.runtime.compute import Compute
from torchkeep.runtime.config import Config
from torchkeep.runtime.logs import AccessLog
from torchkeep.runtime.plugin_loading import Plugins


@dataclass(frozen=True, slots=True)
class Plan:
    """Settled at the start, and the same until the end."""

    config: Config
    plugins: Plugins
    environ: Mapping[str, str]
    compute: Compute
    threads: ThreadPlan
    sandbox: SandboxPolicy
    tls: ssl.SSLContext | None  # of https listeners; None where there are none
    access_log: AccessLog
    metrics: Metrics
