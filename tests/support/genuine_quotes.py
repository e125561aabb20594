"""Quotes of genuine TDX hardware, where they lie beside this repository."""

from pathlib import Path

import pytest

QUOTES = Path(__file__).resolve().parents[3] / "shared/data/quotes"


def genuine(name: str) -> bytes:
    path = QUOTES / name
    if not path.exists():
        pytest.skip(f"the genuine quote {name} is not there")
    return path.read_bytes()
