"""Whose turn it is at which GPU: as the real TorchServe gave them out with TS_NUMBER_OF_GPU=3."""

import pytest

from torchkeep.frontend.gpus import Assignment, Gpus, Turns


def test_workers_of_all_models_take_turns_and_the_first_gets_gpu_1() -> None:
    gpus, one, other = Gpus(3), Turns(), Turns()
    given = [gpus.next(turns).gpu_id for turns in (one, one, one, other, other, other)]
    assert given == [1, 2, 0, 1, 2, 0]


def test_a_single_gpu_is_everybodys() -> None:
    gpus, turns = Gpus(1), Turns()
    assert [gpus.next(turns).gpu_id for _ in range(2)] == [0, 0]


def test_device_ids_have_turns_of_their_own() -> None:
    gpus, listed = Gpus(3), Turns([2, 0])
    assert [gpus.next(listed).gpu_id for _ in range(3)] == [2, 0, 2]
    assert gpus.next(Turns()).gpu_id == 1


def test_without_gpus_there_is_none() -> None:
    assert Gpus().next(Turns([1])) == Assignment()
    assert Assignment().environment == {}


def test_a_parallel_worker_sees_as_many_in_a_row_as_it_has_ranks() -> None:
    gpus, turns = Gpus(4), Turns()
    first, second = gpus.next(turns, 2), gpus.next(turns, 2)
    assert (first.gpu_id, first.environment) == (0, {"CUDA_VISIBLE_DEVICES": "0,1"})
    assert second.environment == {"CUDA_VISIBLE_DEVICES": "2,3"}
    assert gpus.next(Turns([1, 2]), 2).environment == {"CUDA_VISIBLE_DEVICES": "1,2"}


@pytest.mark.parametrize(
    ("asked", "usable"), [([2, 0], [2, 0]), ([0, 3], None), ([], None), (None, None)]
)
def test_one_impossible_device_id_makes_the_list_count_as_unset(
    asked: list[int] | None, usable: list[int] | None
) -> None:
    assert Gpus(3).usable_ids(asked) == usable
    assert Gpus(0).usable_ids(asked) is None
