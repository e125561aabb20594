"""A plain archive whose digest is told: it is the digest of what was unpacked."""

import hashlib
import random
import threading
from pathlib import Path

import pytest

from torchkeep.modelstore.errors import InvalidArchive
from torchkeep.modelstore.pinned import CHUNK_BYTES, PinnedFile

CHANGED = r"^m\.mar changed while it was being opened\.$"
CONTENT = random.Random(1).randbytes(2 * CHUNK_BYTES + 17)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    file = tmp_path / "m.mar"
    file.write_bytes(CONTENT)
    return file


@pytest.mark.parametrize("is_digest_first", [True, False])
@pytest.mark.parametrize("length", [0, 1, CHUNK_BYTES, CHUNK_BYTES + 1, len(CONTENT)])
def test_digest_is_that_of_the_file(path: Path, is_digest_first: bool, length: int) -> None:
    path.write_bytes(CONTENT[:length])
    file = PinnedFile(path, is_digest_first=is_digest_first)
    with file.verified() as reader:
        assert reader.read() == CONTENT[:length]
    file.close()
    assert file.sha256 == hashlib.sha256(CONTENT[:length]).digest()


def flipped(position: int) -> bytes:
    changed = bytearray(CONTENT)
    changed[position] ^= 1
    return bytes(changed)


@pytest.mark.parametrize("position", [0, CHUNK_BYTES, len(CONTENT) - 1])
def test_a_file_that_changes_after_it_was_hashed_is_refused(path: Path, position: int) -> None:
    file = PinnedFile(path, is_digest_first=True)
    with file.verified() as reader:
        path.write_bytes(flipped(position))
        with pytest.raises(InvalidArchive, match=CHANGED):
            reader.read()
    file.close()
    file.close()


@pytest.mark.parametrize("position", [0, CHUNK_BYTES, len(CONTENT) - 1])
def test_a_file_that_changes_before_it_was_hashed_is_refused(path: Path, position: int) -> None:
    file = PinnedFile(path, is_digest_first=False)
    may_hash = threading.Event()

    def read_and_change() -> None:
        with file.verified(lambda: may_hash.wait() and None) as reader:
            reader.read()
            path.write_bytes(flipped(position))
            may_hash.set()

    with pytest.raises(InvalidArchive, match=CHANGED):
        read_and_change()
    file.close()


def test_a_file_that_is_cut_meanwhile_is_refused(path: Path) -> None:
    file = PinnedFile(path, is_digest_first=True)
    path.write_bytes(CONTENT[:-1])
    with pytest.raises(InvalidArchive), file.verified():
        pass
    file.close()


def test_an_error_of_the_reader_ends_the_hashing_too(path: Path) -> None:
    file = PinnedFile(path, is_digest_first=False)
    with pytest.raises(KeyError), file.verified():
        raise KeyError
    file.close()


def test_an_abandoned_digest_ends(path: Path) -> None:
    class Abandoned(Exception):
        pass

    def abandon() -> None:
        raise Abandoned

    for is_digest_first in (True, False):
        file = PinnedFile(path, is_digest_first=is_digest_first)
        with pytest.raises(Abandoned), file.verified(abandon):
            pass
        file.close()
