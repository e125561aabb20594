"""The header of a sealed archive: what may be known of a model before its key is.

Every archive has one header, byte for byte: JSON with sorted keys, no blanks and no second
spelling of anything. A reader that parsed it writes it again and compares, so that nothing can
hide in it. `docs/sealed-archive-format.md` is the description for other implementations.
"""

import json
import re
from dataclasses import dataclass
from typing import Any

FORMAT_VERSION = 1
MAGIC = b"\x89TKSEAL\n"
LENGTH_BYTES = 4  # of the header, big-endian, behind the magic
MAX_HEADER_BYTES = 64 << 10
ALGORITHM = "A256GCM-STREAM"
WRAPPING = "A256KW"
WRAPPED_KEY_BYTES = 72  # chunk key, header key and RFC 3394's 8 bytes
NONCE_PREFIX_BYTES = 7
DIGEST_BYTES = 32
OWNER_BYTES = 32  # an Ed25519 public key
MIN_CHUNK_BYTES = 64
MAX_CHUNK_BYTES = 1 << 20
MAX_TEXT_CHARS = 1024
MAX_PLAINTEXT_BYTES = 1 << 46  # in the smallest chunks the counter, of 32 bits, ends before that
MAX_RELEASE = (1 << 53) - 1  # what every JSON implementation can hold

# No host: an archive must not choose whom the server asks for keys.
KEY_ID = re.compile(r"kbs:///(?!\.{1,2}/)[\w.-]+/(?!\.{1,2}/)[\w.-]+/(?!\.{1,2}$)[\w.-]+", re.ASCII)


@dataclass(frozen=True, slots=True)
class SealHeader:
    """The fields of format 1; binary ones are lower-case hexadecimal in the JSON."""

    model_name: str
    model_version: str
    release: int  # grows with every archive that an owner makes of one name and version
    key_id: str
    wrapped_key: bytes
    nonce_prefix: bytes
    plaintext_length: int
    plaintext_sha256: bytes
    chunk_size: int = MAX_CHUNK_BYTES
    owner: bytes | None = None

    @property
    def chunk_count(self) -> int:
        """At least one: the end is marked in the last chunk, be it empty."""
        return max(1, -(-self.plaintext_length // self.chunk_size))

    def encode(self) -> bytes:
        fields: dict[str, object] = {
            "alg": ALGORITHM,
            "chunk_size": self.chunk_size,
            "format": FORMAT_VERSION,
            "key_id": self.key_id,
            "model_name": self.model_name,
            "model_version": self.model_version,
            "nonce_prefix": self.nonce_prefix.hex(),
            "plaintext_length": self.plaintext_length,
            "plaintext_sha256": self.plaintext_sha256.hex(),
            "release": self.release,
            "wrap": WRAPPING,
            "wrapped_key": self.wrapped_key.hex(),
        }
        if self.owner is not None:
            fields["owner"] = self.owner.hex()
        return canonical_json(fields)


def decode_header(text: bytes) -> SealHeader:
    """Raises ValueError that says what is wrong with the header."""
    fields = _parse(text)
    version = fields.get("format")
    if type(version) is not int or version != FORMAT_VERSION:
        raise ValueError(f"its format version is {version!r:.40}, expected {FORMAT_VERSION}")
    try:
        is_canonical = canonical_json(fields) == text
    except ValueError:  # half a character, which JSON can spell and UTF-8 cannot
        is_canonical = False
    if not is_canonical:
        raise ValueError("its header is not canonical JSON")
    chunk_size = _number(fields, "chunk_size", MIN_CHUNK_BYTES, MAX_CHUNK_BYTES)
    if chunk_size & (chunk_size - 1):
        raise ValueError(f"its chunk_size is {chunk_size}, expected a power of two")
    header = SealHeader(
        model_name=_text(fields, "model_name"),
        model_version=_text(fields, "model_version"),
        release=_number(fields, "release", 0, MAX_RELEASE),
        key_id=check_key_id(_text(fields, "key_id")),
        wrapped_key=_binary(fields, "wrapped_key", WRAPPED_KEY_BYTES),
        nonce_prefix=_binary(fields, "nonce_prefix", NONCE_PREFIX_BYTES),
        plaintext_length=_number(fields, "plaintext_length", 0, MAX_PLAINTEXT_BYTES),
        plaintext_sha256=_binary(fields, "plaintext_sha256", DIGEST_BYTES),
        chunk_size=chunk_size,
        owner=_binary(fields, "owner", OWNER_BYTES) if "owner" in fields else None,
    )
    if header.chunk_count > 1 << 32:
        raise ValueError("it has more chunks than the format can count")
    _check_choice(fields, "alg", ALGORITHM)
    _check_choice(fields, "wrap", WRAPPING)
    # All fields were read; one more than we know would not be written again.
    if header.encode() != text:
        raise ValueError("its header has fields that format 1 does not know")
    return header


def check_key_id(key_id: str) -> str:
    """The id itself; raises ValueError for one that is none, or could leave its place."""
    if not KEY_ID.fullmatch(key_id):
        raise ValueError(f"its key id is {key_id!r}, expected kbs:///repository/type/tag")
    return key_id


def canonical_json(fields: dict[str, Any]) -> bytes:
    """The one spelling: sorted keys, no blanks, UTF-8, escapes only where JSON demands them."""
    return json.dumps(fields, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def _parse(text: bytes) -> dict[str, Any]:
    try:
        fields = json.loads(text.decode(), object_pairs_hook=_without_duplicates)
    except RecursionError as error:
        raise ValueError("its header is no JSON object") from error
    except _DuplicateField:
        raise
    except ValueError as error:
        raise ValueError("its header is no JSON object") from error
    if not isinstance(fields, dict):
        raise ValueError("its header is no JSON object")
    return fields


class _DuplicateField(ValueError):
    """Two parsers could each take another one of the two."""


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) != len(pairs):
        raise _DuplicateField("its header has a field twice")
    return fields


def _text(fields: dict[str, Any], name: str) -> str:
    value = fields.get(name)
    if not isinstance(value, str) or not 0 < len(value) <= MAX_TEXT_CHARS:
        raise ValueError(f"its header needs {name}, a text of 1 to {MAX_TEXT_CHARS} characters")
    if not value.isprintable():
        raise ValueError(f"its {name} has characters that cannot be printed")
    return value


def _number(fields: dict[str, Any], name: str, least: int, most: int) -> int:
    value = fields.get(name)
    if type(value) is not int or not least <= value <= most:
        raise ValueError(f"its header needs {name}, a whole number from {least} to {most}")
    return value


def _binary(fields: dict[str, Any], name: str, length: int) -> bytes:
    value = fields.get(name)
    if not isinstance(value, str) or not re.fullmatch(f"[0-9a-f]{{{2 * length}}}", value):
        raise ValueError(f"its header needs {name}, {2 * length} lower-case hexadecimal digits")
    return bytes.fromhex(value)


def _check_choice(fields: dict[str, Any], name: str, expected: str) -> None:
    if fields.get(name) != expected:
        raise ValueError(f"its {name} is {fields.get(name)!r:.40}, expected {expected}")
