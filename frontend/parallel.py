"""Models that several processes run together (`parallelType`): their numbers, and what each gets.

TorchServe starts them by torchrun; here a worker forks its ranks itself, see `backend/ranks.py`.
`custom` means one process that arranges the rest itself.
"""

import logging
from collections.abc import Mapping

from torchkeep.runtime.messages import Parallel

log = logging.getLogger(__name__)

RANKED = ("pp", "tp", "pptp")
ASK_ALL = ("tp", "pptp")
FIRST_PORT = 29500  # TorchServe's default of initial_distribution_port


class DistributionPorts:
    """Numbers that name the workers of parallel models: each takes one for every rank."""

    def __init__(self, first: int = FIRST_PORT) -> None:
        self._next = first

    def take(self, count: int) -> int:
        first, self._next = self._next, self._next + count
        return first


def parallel_run(name: str, worker_id: str, parallel_type: str, level: int) -> Parallel:
    """How the processes of this worker run the model together; alone, where they do not."""
    if parallel_type not in RANKED or level < 2:
        return Parallel()
    return Parallel(level, parallel_type in ASK_ALL, f"{name}_{worker_id}")


def rank_threads(torchrun: Mapping[str, int | str] | None, threads: int, world_size: int) -> int:
    """The threads of each rank: what the model asks for, else its share of the worker's."""
    asked = (torchrun or {}).get("OMP_NUMBER_THREADS", 1)
    share = max(1, threads // world_size)
    # TorchServe's default is one, and so is "unset": more is asked for, one is not.
    return asked if isinstance(asked, int) and asked > 1 else share
