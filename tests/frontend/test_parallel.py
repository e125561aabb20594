"""What the workers of parallel models are called, and what each of their ranks gets."""

import pytest

from torchkeep.frontend.parallel import DistributionPorts, parallel_run, rank_threads
from torchkeep.runtime.messages import Parallel


def test_each_rank_takes_a_number() -> None:
    ports = DistributionPorts(29500)
    assert [ports.take(2), ports.take(3), ports.take(1)] == [29500, 29502, 29505]


@pytest.mark.parametrize(
    ("kind", "level", "expected"),
    [
        ("tp", 2, Parallel(2, True, "m_29500")),
        ("pptp", 4, Parallel(4, True, "m_29500")),
        ("pp", 2, Parallel(2, False, "m_29500")),
        ("custom", 2, Parallel()),
        ("tp", 1, Parallel()),
        ("", 0, Parallel()),
    ],
)
def test_who_is_asked(kind: str, level: int, expected: Parallel) -> None:
    assert parallel_run("m", "29500", kind, level) == expected


def test_ranks_share_the_threads_of_a_worker() -> None:
    assert rank_threads(None, 8, 2) == 4
    assert rank_threads({"OMP_NUMBER_THREADS": 1}, 1, 2) == 1
    assert rank_threads({"OMP_NUMBER_THREADS": 3}, 8, 2) == 3
