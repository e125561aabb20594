"""The keys and their file, as in TorchServe."""

import json
import stat
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from torchkeep.frontend.api_keys import KEY_FILE, ApiKeys

NOON = datetime(2026, 2, 3, 12, tzinfo=UTC).timestamp()
KINDS: Any = ("management", "inference", "API")


class Clock:
    def __init__(self) -> None:
        self.now = NOON

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def keys(tmp_path: Path, clock: Clock) -> ApiKeys:
    opened = ApiKeys(tmp_path / KEY_FILE, 60, clock)
    opened.open()
    return opened


def shown(keys: ApiKeys, kind: str) -> str:
    return f"Bearer {json.loads(keys.file.read_text())[kind]['key']}"


def test_the_file_is_as_torchserves(keys: ApiKeys) -> None:
    text = keys.file.read_text()
    entries = json.loads(text)
    assert list(entries) == ["management", "inference", "API"]
    assert [list(entry) for entry in entries.values()] == [
        ["key", "expiration time"],
        ["key", "expiration time"],
        ["key"],
    ]
    assert entries["management"]["expiration time"] == "2026-02-03T13:00:00.000000Z"
    assert text == json.dumps(entries, indent=2)
    assert stat.filemode(keys.file.stat().st_mode) == "-rw-------"


def test_every_key_is_another_and_every_start_makes_new_ones(keys: ApiKeys) -> None:
    first = {entry["key"] for entry in json.loads(keys.file.read_text()).values()}
    keys.open()
    second = {entry["key"] for entry in json.loads(keys.file.read_text()).values()}
    assert len(first | second) == 6
    assert all(len(key) == 24 for key in first | second)


def test_a_key_opens_only_what_it_is_for(keys: ApiKeys) -> None:
    for kind in KINDS:
        for other in KINDS:
            assert keys.admit([other], shown(keys, kind)) is (kind == other)


def test_a_key_ends_with_its_time_to_the_microsecond(keys: ApiKeys, clock: Clock) -> None:
    clock.now = NOON + 3600 - 1e-3
    assert keys.admit(["management"], shown(keys, "management"))
    clock.now = NOON + 3600
    assert not keys.admit(["management"], shown(keys, "management"))
    assert not keys.admit(["inference"], shown(keys, "inference"))


def test_the_api_key_never_ends(keys: ApiKeys, clock: Clock) -> None:
    clock.now = NOON + 1e9
    assert keys.admit(["API"], shown(keys, "API"))


@pytest.mark.parametrize(
    ("minutes", "end"),
    [
        (0.5, "2026-02-03T12:00:30.000000Z"),
        (0.0, "2026-02-03T12:00:00.000000Z"),
        (-1.0, "2026-02-03T12:00:00.000000Z"),
        (float("-inf"), "2026-02-03T12:00:00.000000Z"),
        (1e300, "9999-12-31T23:59:59.999999Z"),
        (float("inf"), "9999-12-31T23:59:59.999999Z"),
    ],
)
def test_lifetimes(tmp_path: Path, clock: Clock, minutes: float, end: str) -> None:
    keys = ApiKeys(tmp_path / KEY_FILE, minutes, clock)
    keys.open()
    assert json.loads(keys.file.read_text())["inference"]["expiration time"] == end
    assert keys.admit(["inference"], shown(keys, "inference")) is (minutes > 0)


def test_renewing_replaces_one_key_and_its_time(keys: ApiKeys, clock: Clock) -> None:
    old = shown(keys, "inference")
    before = json.loads(keys.file.read_text())
    clock.now = NOON + 3601
    keys.renew("inference")
    after = json.loads(keys.file.read_text())
    assert after["inference"]["expiration time"] == "2026-02-03T14:00:01.000000Z"
    assert {**after, "inference": before["inference"]} == before
    assert keys.admit(["inference"], shown(keys, "inference"))
    assert not keys.admit(["inference"], old)


def test_a_file_that_others_could_read_is_replaced_by_one_they_cannot(
    keys: ApiKeys, tmp_path: Path
) -> None:
    public = tmp_path / "public"
    public.write_text("mine")
    keys.file.unlink()
    keys.file.symlink_to(public)
    keys.open()
    assert public.read_text() == "mine"
    assert stat.filemode(keys.file.lstat().st_mode) == "-rw-------"


def test_a_renewal_that_cannot_be_written_leaves_the_old_key(keys: ApiKeys, tmp_path: Path) -> None:
    old = shown(keys, "inference")
    keys.file.unlink()
    keys.file.mkdir()
    with pytest.raises(OSError, match="directory"):
        keys.renew("inference")
    assert keys.admit(["inference"], old)
    assert [path.name for path in tmp_path.iterdir()] == [KEY_FILE]


def test_closing_removes_the_file(keys: ApiKeys) -> None:
    keys.close()
    keys.close()
    assert not keys.file.exists()


def test_closing_leaves_the_file_of_another_server(keys: ApiKeys) -> None:
    other = ApiKeys(keys.file, 60)
    other.open()
    keys.close()
    assert other.admit(["API"], shown(other, "API"))
