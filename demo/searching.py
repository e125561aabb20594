"""Looks for plaintext and keys where none may be."""

import base64
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

PIECE_BYTES = 32  # long enough to be found nowhere by chance
EVERY_BYTES = 1024


@dataclass(frozen=True, slots=True)
class Secrets:
    """Pieces of what must stay secret, by the file that they are of."""

    pieces: Mapping[str, list[bytes]]

    @property
    def count(self) -> int:
        return sum(map(len, self.pieces.values()))

    def found_in(self, contents: Iterable[bytes]) -> dict[str, int]:
        """How many pieces of each secret stand in what was searched; those of none left out."""
        texts = list(contents)
        found = {
            name: sum(any(piece in text for text in texts) for piece in pieces)
            for name, pieces in self.pieces.items()
        }
        return {name: count for name, count in found.items() if count}


def pieces_of(*files: Path) -> dict[str, list[bytes]]:
    """Every so often a piece of each file, as it is stored."""
    return {file.name: _pieces(file.read_bytes()) for file in files}


def forms_of(key: bytes) -> list[bytes]:
    """A key as it is, and as text."""
    encoded = base64.b64encode(key).rstrip(b"=")
    url_safe = base64.urlsafe_b64encode(key).rstrip(b"=")
    return [key, key.hex().encode(), key.hex().upper().encode(), encoded, url_safe]


def files_below(*roots: Path) -> list[Path]:
    return [path for root in roots for path in sorted(root.rglob("*")) if path.is_file()]


def _pieces(content: bytes) -> list[bytes]:
    pieces = [content[at : at + PIECE_BYTES] for at in range(0, len(content), EVERY_BYTES)]
    # A piece that is one byte over and over stands in many files.
    return [piece for piece in pieces if len(piece) == PIECE_BYTES and len(set(piece)) > 8]
