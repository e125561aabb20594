"""Weights from files: what is read as it is, what is read with code, and what is refused."""

import argparse
import json
import logging
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from ts.torch_handler.weights import (  # noqa: E402
    UntrustedPickle,
    load_pickled,
    load_safetensors,
    load_weights,
)

pytestmark = pytest.mark.torch


def write_safetensors(path: Path, header: Any, data: bytes = b"") -> Path:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + data)
    return path


def tensor(dtype: str, shape: list[int], first: int, last: int) -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [first, last]}


def test_safetensors_are_read(tmp_path: Path) -> None:
    matrix = torch.arange(6, dtype=torch.float32).reshape(2, 3)
    half = torch.tensor([1.5, -2.0], dtype=torch.bfloat16)
    data = matrix.numpy().tobytes() + half.view(torch.int16).numpy().tobytes()
    header = {
        "__metadata__": {"format": "pt"},
        "matrix": tensor("F32", [2, 3], 0, 24),
        "half": tensor("BF16", [2], 24, 28),
        "scalar": tensor("I32", [], 24, 28),
        "nothing": tensor("F32", [0, 3], 24, 24),
    }
    found = load_weights(str(write_safetensors(tmp_path / "m.safetensors", header, data)), "cpu")
    assert torch.equal(found["matrix"], matrix)
    assert torch.equal(found["half"], half)
    assert found["half"].dtype is torch.bfloat16
    assert found["scalar"].shape == ()
    assert found["nothing"].shape == (0, 3)
    assert "__metadata__" not in found


def test_what_the_library_writes_is_read(tmp_path: Path) -> None:
    library = pytest.importorskip("safetensors.torch")
    state = torch.nn.Linear(3, 2).state_dict() | {"flags": torch.tensor([True, False])}
    library.save_file(state, tmp_path / "m.safetensors")
    found = load_safetensors(str(tmp_path / "m.safetensors"))
    assert found.keys() == state.keys()
    assert all(torch.equal(found[name], state[name]) for name in state)


@pytest.mark.parametrize(
    ("header", "data"),
    [
        ({"a": tensor("F32", [2], 0, 8)}, b"1234567"),
        ({"a": tensor("F32", [2], 0, 4)}, b"12345678"),
        ({"a": tensor("F32", [2], -8, 0)}, b"12345678"),
        ({"a": tensor("F32", [-2], 0, 8)}, b"12345678"),
        ({"a": tensor("F32", [1 << 62], 0, 8)}, b"12345678"),
        ({"a": tensor("F7", [2], 0, 8)}, b"12345678"),
        ({"a": {"dtype": "F32"}}, b""),
        ({"a": 1}, b""),
        ([], b""),
        (b"{", b""),
        (b"[" * 100_000, b""),
    ],
)
def test_a_broken_safetensors_file_is_refused(tmp_path: Path, header: Any, data: bytes) -> None:
    path = write_safetensors(tmp_path / "m.safetensors", header, data)
    with pytest.raises(ValueError, match=r"m\.safetensors is no safetensors file"):
        load_safetensors(str(path))


@pytest.mark.parametrize("content", [b"", b"\x08", (99).to_bytes(8, "little") + b"{}"])
def test_a_cut_off_safetensors_file_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "m.safetensors").write_bytes(content)
    with pytest.raises(ValueError, match="header is cut off"):
        load_safetensors(str(tmp_path / "m.safetensors"))


@pytest.fixture
def checkpoint(tmp_path: Path) -> str:
    path = tmp_path / "w.pt"
    torch.save({"words": Counter("aab"), "arguments": argparse.Namespace(size=3)}, path)
    return str(path)


def test_a_pickle_with_classes_is_refused_without_a_sandbox(checkpoint: str) -> None:
    with pytest.raises(UntrustedPickle, match=r"argparse\.Namespace.*sandbox=standard"):
        load_pickled(checkpoint, None)


def test_a_pickle_with_classes_is_read_in_a_sandbox_and_the_log_says_why(
    checkpoint: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        found = load_pickled(checkpoint, None, trusts_pickles=True)
    assert found["words"]["a"] == 2
    assert "argparse.Namespace" in caplog.text


def test_tensors_alone_need_no_trust(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    torch.save({"a": torch.ones(2)}, tmp_path / "w.pt")
    assert load_pickled(str(tmp_path / "w.pt"), "cpu", trusts_pickles=True)["a"].tolist() == [1, 1]
    assert not caplog.records
