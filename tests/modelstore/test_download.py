"""A file arrives whole and under its own name, or not at all."""

import os
from pathlib import Path

import pytest

from torchkeep.modelstore.download import download
from torchkeep.modelstore.errors import FileAlreadyExists
from torchkeep.modelstore.reach import Reach

CONTENT = b"PK\x03\x04 and more"


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "source"
    path.write_bytes(CONTENT)
    return path


@pytest.fixture
def target(tmp_path: Path) -> Path:
    (tmp_path / "store").mkdir()
    return tmp_path / "store" / "m.mar"


def fetch(source: Path, target: Path, arrival: bytes | None = None) -> None:
    """Download; `arrival` is what somebody else puts under that name in the meantime."""

    def meanwhile() -> None:
        if arrival is not None:
            target.write_bytes(arrival)

    download(f"file://{source}", target, 1000, lambda url: None, meanwhile, reach=Reach())


def without_links(*_: object) -> None:
    raise PermissionError("no hard links here")


def test_a_file_arrives(source: Path, target: Path) -> None:
    fetch(source, target)
    assert target.read_bytes() == CONTENT
    assert os.listdir(target.parent) == ["m.mar"]


def test_a_file_arrives_where_there_are_no_hard_links(
    source: Path, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "link", without_links)
    fetch(source, target)
    assert target.read_bytes() == CONTENT
    assert os.listdir(target.parent) == ["m.mar"]


@pytest.mark.parametrize("has_links", [True, False])
def test_what_came_in_the_meantime_stays(
    source: Path, target: Path, monkeypatch: pytest.MonkeyPatch, has_links: bool
) -> None:
    if not has_links:
        monkeypatch.setattr(os, "link", without_links)
    with pytest.raises(FileAlreadyExists):
        fetch(source, target, arrival=b"faster")
    assert target.read_bytes() == b"faster"
    assert os.listdir(target.parent) == ["m.mar"]
