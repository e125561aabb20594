"""Ids for workers: free ones only, and only where root can use them."""

from pathlib import Path

import pytest

from torchkeep.frontend import worker_users
from torchkeep.frontend.worker_users import (
    FIRST_ID,
    LAST_ID,
    WorkerUsers,
    closed_to_others,
    has_capability,
    ids_in_use,
)


def test_an_id_is_given_once_until_it_comes_back() -> None:
    everything = set(range(FIRST_ID, LAST_ID + 1))
    users = WorkerUsers(everything - {FIRST_ID, LAST_ID})
    assert {users.take(), users.take()} == {FIRST_ID, LAST_ID}
    with pytest.raises(OSError, match="no free user id from 61184 to 65519"):
        users.take()
    users.give_back(LAST_ID)
    assert users.take() == LAST_ID


def test_ids_in_use_are_those_of_the_range() -> None:
    assert all(FIRST_ID <= one <= LAST_ID for one in ids_in_use())


def test_the_first_closed_directory_is_named(tmp_path: Path) -> None:
    inner = tmp_path / "closed" / "inner"
    inner.mkdir(parents=True)
    (tmp_path / "closed").chmod(0o700)
    found = closed_to_others(inner)
    assert found is not None
    assert found in [tmp_path / "closed", *tmp_path.parents]
    assert closed_to_others(Path("/usr")) is None


def test_a_capability_is_read_from_the_kernel() -> None:
    assert not has_capability(63)


def test_missing_capabilities_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker_users, "has_capability", lambda bit: bit != 5)
    assert worker_users.obstacle_to_own_users() == "root lacks the capabilities KILL"
