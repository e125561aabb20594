import hashlib
import os
from pathlib import Path

import pytest

from torchkeep.modelstore.directory_digest import directory_digest


def test_digest_is_the_documented_one(tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "x").write_bytes(b"1")
    (tmp_path / "a").write_bytes(b"")
    expected = hashlib.sha256(b"torchkeep-directory-1\n")
    for path, content in ((b"a", b""), (b"b/x", b"1")):
        expected.update(b"f" + len(path).to_bytes(4, "big") + path)
        expected.update(hashlib.sha256(content).digest())
    assert directory_digest(tmp_path) == expected.digest()


def make(root: Path, files: dict[str, bytes]) -> Path:
    for name, content in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content)
    return root


def test_digest_does_not_depend_on_place_times_or_order(tmp_path: Path) -> None:
    one = make(tmp_path / "one", {"a": b"1", "b/c": b"2"})
    other = make(tmp_path / "other", {"b/c": b"2", "a": b"1"})
    os.utime(other / "a", (0, 0))
    (other / "empty").mkdir()
    link = tmp_path / "link"
    link.symlink_to(other)
    assert directory_digest(one) == directory_digest(other) == directory_digest(link)


@pytest.mark.parametrize(
    "files",
    [
        {"a": b"2", "b/c": b"2"},
        {"a": b"1", "b/d": b"2"},
        {"a": b"1", "b/c": b"2", "d": b""},
        {"a": b"1"},
        {"ab/c": b"", "a": b"1", "b/c": b"2"},
    ],
)
def test_every_change_changes_the_digest(tmp_path: Path, files: dict[str, bytes]) -> None:
    before = directory_digest(make(tmp_path / "before", {"a": b"1", "b/c": b"2"}))
    assert directory_digest(make(tmp_path / "after", files)) != before


def test_links_count_by_what_a_handler_reads_through_them(tmp_path: Path) -> None:
    weights = tmp_path / "weights"
    weights.write_bytes(b"1")
    model = make(tmp_path / "model", {"a": b""})
    (model / "weights").symlink_to(weights)
    before = directory_digest(model)
    weights.write_bytes(b"2")
    assert directory_digest(model) != before


def test_a_circle_of_links_ends(tmp_path: Path) -> None:
    model = make(tmp_path / "model", {"a": b""})
    before = directory_digest(model)
    (model / "again").symlink_to(model)
    (model / "nowhere").symlink_to("nowhere")
    assert directory_digest(model) != before


def test_pipes_are_not_waited_for(tmp_path: Path) -> None:
    model = make(tmp_path / "model", {"a": b""})
    before = directory_digest(model)
    os.mkfifo(model / "pipe")
    assert directory_digest(model) == before


def test_an_abandoned_digest_ends(tmp_path: Path) -> None:
    class Abandoned(Exception):
        pass

    def abandon() -> None:
        raise Abandoned

    with pytest.raises(Abandoned):
        directory_digest(make(tmp_path, {"a": b"1"}), abandon)
