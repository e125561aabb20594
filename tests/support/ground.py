"""What the workers of a test's models have in common."""

import itertools
import os
from collections.abc import Callable
from typing import Any

from torchkeep.frontend.metrics import Metrics
from torchkeep.frontend.served_model import WorkerGround
from torchkeep.frontend.thread_plan import ThreadPlan
from torchkeep.runtime.cores import Cores, usable_cores


def worker_ground(
    zygote: Any = None,
    *,
    metrics: Metrics | None = None,
    environment: Callable[[], dict[str, str]] = lambda: dict(os.environ),
    max_response_bytes: int = 1 << 20,
    cores: Cores | None = None,
    **others: Any,
) -> WorkerGround:
    """That of a server without configuration; `zygote` is None where no worker is started."""
    return WorkerGround(
        zygote,
        metrics or Metrics(),
        itertools.count(9000),
        environment,
        limit_max_image_pixels=True,
        decode_input_request=True,
        max_response_bytes=max_response_bytes,
        plan=ThreadPlan(cores or usable_cores()),
        **others,
    )
