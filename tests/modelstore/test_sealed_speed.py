"""Opening a sealed archive against unpacking the same one plain, side by side."""

import asyncio
import os
import random
import shutil
import struct
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from sealing import Keys, mar_bytes, write_sealed

from torchkeep.modelstore.memory_place import SHARED_MEMORY, MemoryPlace
from torchkeep.modelstore.store import ModelStore

MIB = 1 << 20
LEAST_ROUNDS = 3
PATIENCE_S = 45.0  # for a moment in which a machine that does other things as well has both cores


@pytest.fixture
def memory() -> Iterator[Path]:
    root = SHARED_MEMORY / f"torchkeep-speed-{os.getpid()}"
    root.mkdir()
    yield root
    shutil.rmtree(root)


def weights(size: int) -> bytes:
    """Float32 weights as training leaves them; a tenth is what zip can take off."""
    rng = random.Random(1)
    block = struct.pack("<65536f", *(rng.gauss(0, 0.05) for _ in range(65536)))
    return block * (size // len(block))


@pytest.mark.parametrize(
    "mebibytes",
    [50, pytest.param(500, id="500-long", marks=[pytest.mark.long, pytest.mark.timeout(600)])],
)
@pytest.mark.parametrize(
    ("compression", "most"),
    [
        pytest.param(zipfile.ZIP_DEFLATED, 1.5, id="default"),
        pytest.param(zipfile.ZIP_STORED, 2.0, id="stored"),
    ],
)
def test_opening_takes_little_longer_than_unpacking(
    mebibytes: int, compression: int, most: float, tmp_path: Path, memory: Path
) -> None:
    plain = mar_bytes(files={"weights": weights(mebibytes * MIB)}, compression=compression)
    (tmp_path / "plain.mar").write_bytes(plain)
    write_sealed(tmp_path / "sealed.mar", plain)
    del plain
    # Both into the same memory: on a disk the plain one would be slower, and seem better.
    store = ModelStore(
        tmp_path, [], memory, key_source=Keys(), memory_place=MemoryPlace(memory, memory)
    )

    def seconds(url: str) -> float:
        start = time.perf_counter()
        model_dir = asyncio.run(store.open(url))
        taken = time.perf_counter() - start
        model_dir.close()
        return taken

    # The least of several: whatever else the machine does only ever adds.
    least = {"plain.mar": float("inf"), "sealed.mar": float("inf")}
    end = time.monotonic() + PATIENCE_S
    rounds = 0
    while rounds < LEAST_ROUNDS or time.monotonic() < end:
        least = {url: min(before, seconds(url)) for url, before in least.items()}
        rounds += 1
        if rounds >= LEAST_ROUNDS and least["sealed.mar"] <= most * least["plain.mar"]:
            return
    pytest.fail(f"more than {most} times as long: {least}")
