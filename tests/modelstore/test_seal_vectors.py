"""The test vectors of docs/sealed-archive-format.md, by our implementation and by another."""

import hashlib
import json
import re
from pathlib import Path

import pytest
import sealed_reference

from torchkeep.modelstore.seal_header import MAGIC, decode_header
from torchkeep.modelstore.sealed import open_sealed

DOCUMENT = Path(__file__).parents[2] / "docs" / "sealed-archive-format.md"
VECTORS = [
    dict(line.partition(":")[::2] for line in block.splitlines())
    for block in re.findall(
        r"```text\n(.*?)```", DOCUMENT.read_text().partition("## Test vectors")[2], re.DOTALL
    )
]


class Vector:
    """One block of the document."""

    def __init__(self, lines: dict[str, str]) -> None:
        self.lines = {name: value.strip() for name, value in lines.items()}
        header = self.lines["header"].encode()
        self.sealed = MAGIC + len(header).to_bytes(4, "big") + header
        self.sealed += self.binary("signature") + self.binary("header_tag")
        chunks = [name for name in self.lines if name.startswith("chunk_")]
        self.sealed += b"".join(map(self.binary, chunks))

    def binary(self, name: str) -> bytes:
        return bytes.fromhex(self.lines.get(name, ""))


@pytest.fixture(params=VECTORS, ids=range(len(VECTORS)))
def vector(request: pytest.FixtureRequest) -> Vector:
    return Vector(request.param)


def test_there_are_vectors() -> None:
    assert len(VECTORS) == 3


def test_the_parts_are_the_whole(vector: Vector) -> None:
    assert hashlib.sha256(vector.sealed).hexdigest() == vector.lines["sealed_sha256"]


def test_we_open_it(vector: Vector, tmp_path: Path) -> None:
    path = tmp_path / "vector"
    path.write_bytes(vector.sealed)
    file = open_sealed(path)
    with file.unlock(bytearray(vector.binary("wrapping_key"))).verified() as reader:
        assert reader.read() == vector.binary("plaintext")
    file.close()


def test_we_would_write_its_header(vector: Vector) -> None:
    header = vector.lines["header"].encode()
    assert decode_header(header).encode() == header


def test_another_implementation_writes_and_opens_it(vector: Vector) -> None:
    keys = vector.binary("wrapping_key"), vector.binary("data_keys")
    plaintext = vector.binary("plaintext")
    fields = json.loads(vector.lines["header"])
    signing_key = vector.binary("signing_key") or None
    assert sealed_reference.seal(fields, plaintext, *keys, signing_key) == vector.sealed
    assert sealed_reference.open_sealed(vector.sealed, keys[0]) == plaintext
