"""An attacker has the sealed archive, and may change anything in it."""

import hashlib
import io
import json
import os
import random
import re
import resource
import struct
import subprocess
import sys
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import sealed_reference
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from torchkeep.modelstore.errors import KeyUnavailable, ModelStoreError, SealBroken, SealingError
from torchkeep.modelstore.seal_header import (
    LENGTH_BYTES,
    MAGIC,
    MAX_HEADER_BYTES,
    SealHeader,
    canonical_json,
    decode_header,
)
from torchkeep.modelstore.sealed import (
    CHUNK_TAG_BYTES,
    HEADER_TAG_BYTES,
    SIGNATURE_BYTES,
    SealRequest,
    is_sealed,
    open_sealed,
    seal,
)

KEK = bytes(range(32))
OWNER = Ed25519PrivateKey.from_private_bytes(b"o" * 32)
CHUNK = 64
CONTENTS = random.Random(4).randbytes(5 * CHUNK + 10)
HEADER_AT = len(MAGIC) + LENGTH_BYTES


def request(**changes: object) -> SealRequest:
    usual = SealRequest("digits", "1.0", 7, "kbs:///models/key/digits", chunk_size=CHUNK)
    return replace(usual, **changes)  # type: ignore[arg-type]


def sealed_bytes(contents: bytes = CONTENTS, **changes: object) -> bytes:
    sealed = io.BytesIO()
    seal(io.BytesIO(contents), sealed, bytearray(KEK), request(**changes))
    return sealed.getvalue()


def open_bytes(path: Path, kek: bytes = KEK) -> bytes:
    """Everything in the sealed archive at `path`, by a first pass and a second."""
    file = open_sealed(path)
    try:
        with file.unlock(bytearray(kek)).verified() as reader:
            return reader.read()
    finally:
        file.close()


def refusal(path: Path, sealed: bytes, kek: bytes = KEK) -> ModelStoreError:
    path.write_bytes(sealed)
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(ModelStoreError) as caught:
        open_bytes(path, kek)
    assert len(os.listdir("/proc/self/fd")) == before
    assert "\n" not in str(caught.value)
    return caught.value


def header_of(sealed: bytes) -> dict[str, object]:
    fields: dict[str, object] = json.loads(sealed[HEADER_AT : header_end(sealed)])
    return fields


def header_end(sealed: bytes) -> int:
    return HEADER_AT + int.from_bytes(sealed[len(MAGIC) : HEADER_AT], "big")


def chunks_at(sealed: bytes) -> int:
    signature = SIGNATURE_BYTES if b'"owner"' in sealed[: header_end(sealed)] else 0
    return header_end(sealed) + signature + HEADER_TAG_BYTES


def with_header(sealed: bytes, text: bytes) -> bytes:
    return MAGIC + struct.pack(">I", len(text)) + text + sealed[header_end(sealed) :]


def changed_header(sealed: bytes, **fields: object) -> bytes:
    return with_header(sealed, canonical_json(header_of(sealed) | fields))


def flipped(sealed: bytes, position: int, bit: int = 0) -> bytes:
    return sealed[:position] + bytes([sealed[position] ^ 1 << bit]) + sealed[position + 1 :]


@pytest.mark.parametrize("length", [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 2 * CHUNK, len(CONTENTS)])
@pytest.mark.parametrize("owner", [None, OWNER])
def test_what_was_sealed_comes_out(
    length: int, owner: Ed25519PrivateKey | None, tmp_path: Path
) -> None:
    path = tmp_path / "a"
    path.write_bytes(sealed_bytes(CONTENTS[:length], signing_key=owner))
    assert open_bytes(path) == CONTENTS[:length]
    header = open_sealed(path).header
    assert header.plaintext_sha256 == hashlib.sha256(CONTENTS[:length]).digest()
    assert (header.model_name, header.model_version, header.release) == ("digits", "1.0", 7)
    assert is_sealed(path.read_bytes()[:16])


def test_equal_archives_are_sealed_unequally() -> None:
    first, second = sealed_bytes(), sealed_bytes()
    assert header_of(first)["wrapped_key"] != header_of(second)["wrapped_key"]
    assert first[chunks_at(first) :] != second[chunks_at(second) :]


def test_no_bit_can_be_flipped_anywhere(tmp_path: Path) -> None:
    sealed = sealed_bytes(CONTENTS[: 2 * CHUNK], signing_key=OWNER)
    path = tmp_path / "a"
    for position in range(len(sealed)):
        refusal(path, flipped(sealed, position, position % 8))


def test_no_bit_can_be_flipped_in_an_unsigned_archive(tmp_path: Path) -> None:
    sealed = sealed_bytes(CONTENTS[: 2 * CHUNK])
    path = tmp_path / "a"
    for position in range(len(sealed)):
        refusal(path, flipped(sealed, position, position % 8))


@pytest.mark.parametrize(
    ("position", "reason"),
    [
        (lambda s: 0, "it does not begin as a sealed archive does"),
        (lambda s: len(MAGIC), "its header would be .* bytes long, at most 65536 are"),
        (lambda s: header_end(s), "its header is not what its owner signed"),
        (lambda s: s.index(b'"1.0"') + 3, "its header is not what its owner signed"),
        (lambda s: header_end(s) + SIGNATURE_BYTES, "its header was changed after it was sealed"),
        (lambda s: chunks_at(s), "chunk 0 of 6 was changed"),
        (lambda s: chunks_at(s) + CHUNK, "chunk 0 of 6 was changed"),
        (lambda s: chunks_at(s) + 3 * (CHUNK + CHUNK_TAG_BYTES), "chunk 3 of 6 was changed"),
        (lambda s: len(s) - 1, "chunk 5 of 6 was changed"),
    ],
)
def test_each_region_has_an_error_of_its_own(
    position: Callable[[bytes], int], reason: str, tmp_path: Path
) -> None:
    sealed = sealed_bytes(signing_key=OWNER)
    error = refusal(tmp_path / "a", flipped(sealed, position(sealed)))
    assert isinstance(error, SealBroken)
    assert re.match(f"a: {reason}", str(error)), error


def test_no_length_but_the_right_one(tmp_path: Path) -> None:
    sealed = sealed_bytes()
    for length in range(len(sealed)):
        error = refusal(tmp_path / "a", sealed[:length])
        assert isinstance(error, SealBroken)
    assert error.reason == f"it was cut off: {len(sealed) - 1} bytes of {len(sealed)}"
    error = refusal(tmp_path / "a", sealed + b"x")
    assert str(error) == "a: it goes on for 1 bytes behind its end."


def test_a_whole_chunk_cannot_be_left_out_even_if_the_header_says_so(tmp_path: Path) -> None:
    sealed = sealed_bytes()
    shorter = changed_header(sealed, plaintext_length=5 * CHUNK)
    error = refusal(tmp_path / "a", shorter[: -10 - CHUNK_TAG_BYTES])
    assert str(error) == "a: its header was changed after it was sealed."


def test_chunks_cannot_change_places(tmp_path: Path) -> None:
    sealed = sealed_bytes()
    start, size = chunks_at(sealed), CHUNK + CHUNK_TAG_BYTES
    one, two = sealed[start : start + size], sealed[start + size : start + 2 * size]
    swapped = sealed[:start] + two + one + sealed[start + 2 * size :]
    error = refusal(tmp_path / "a", swapped)
    assert "chunk 0 of 6 was changed, moved or comes from another archive" in str(error)


def test_chunks_of_another_archive_do_not_fit_even_under_the_same_key(tmp_path: Path) -> None:
    ours, other = sealed_bytes(), sealed_bytes(release=8)
    error = refusal(tmp_path / "a", ours[: chunks_at(ours)] + other[chunks_at(other) :])
    assert "chunk 0 of 6" in str(error)


def test_a_header_of_another_archive_does_not_fit(tmp_path: Path) -> None:
    ours, other = sealed_bytes(), sealed_bytes(release=8)
    text = other[HEADER_AT : header_end(other)]
    error = refusal(tmp_path / "a", with_header(ours, text))
    assert str(error) == "a: its header was changed after it was sealed."


def test_the_wrong_key(tmp_path: Path) -> None:
    for kek in (bytes(32), KEK[:16], b""):
        error = refusal(tmp_path / "a", sealed_bytes(), kek)
        assert isinstance(error, KeyUnavailable)
        assert error.step == "wrong key"
        assert "kbs:///models/key/digits" in str(error)


def test_a_header_that_is_huge_is_not_read(tmp_path: Path) -> None:
    for length in (MAX_HEADER_BYTES + 1, 0xFFFFFFFF):
        path = tmp_path / "a"
        error = refusal(path, MAGIC + struct.pack(">I", length) + b"{" * 100)
        assert f"its header would be {length} bytes long" in str(error)
    error = refusal(path, MAGIC + struct.pack(">I", MAX_HEADER_BYTES) + b"[" * MAX_HEADER_BYTES)
    assert str(error) == "a: its header is no JSON object."


def test_another_format_version(tmp_path: Path) -> None:
    for version in (0, 2, "1", 1.0, True, None):
        error = refusal(tmp_path / "a", changed_header(sealed_bytes(), format=version))
        assert str(error) == f"a: its format version is {version!r}, expected 1."


def edited(old: bytes, new: bytes) -> Callable[[bytes], bytes]:
    return lambda text: text.replace(old, new, 1)


@pytest.mark.parametrize(
    ("edit", "reason"),
    [
        (edited(b"{", b"{ "), "its header is not canonical JSON"),
        (lambda text: text + b"\n", "its header is not canonical JSON"),
        (edited(b"digits", b"\\u0064igits"), "its header is not canonical JSON"),
        (edited(b'"release":7', b'"release":7e0'), "its header is not canonical JSON"),
        (edited(b'"release":7', b'"release":07'), "its header is no JSON object"),
        (edited(b'"release":7', b'"release":-1'), "its header needs release, a whole number .*"),
        (edited(b'"release":7', b'"release":true'), "its header needs release, a whole number .*"),
        (edited(b'"release":7', b'"release":' + b"9" * 5000), "its header is no JSON object"),
        (edited(b'"release":7', b'"release":7,"release":7'), "its header has a field twice"),
        (edited(b'"release":7', b'"release":7,"spare":0'), "its header has fields that .*"),
        (edited(b"digits", b"\xff"), "its header is no JSON object"),
        (edited(b"digits", b"\\ud800"), "its header is not canonical JSON"),
        (edited(b'"digits"', b'""'), "its header needs model_name, a text .*"),
        (edited(b'"digits"', b'"a\\nb"'), "its model_name has characters that cannot be .*"),
        (edited(b'"digits"', b'"' + b"x" * 1025 + b'"'), "its header needs model_name, a text .*"),
        (edited(b"models/key/", b"a/../"), "its key id is .*"),
        (edited(b"kbs:///models", b"kbs://evil/x"), "its key id is .*"),
        (edited(b"A256KW", b"A128KW"), "its wrap is 'A128KW', expected A256KW"),
        (edited(b"A256GCM", b"A128GCM"), "its alg is 'A128GCM-STREAM', expected A256GCM-STREAM"),
        (edited(b'"chunk_size":64', b'"chunk_size":63'), "its header needs chunk_size, .*"),
        (
            edited(b'"chunk_size":64', b'"chunk_size":65'),
            "its chunk_size is 65, expected a power.*",
        ),
        (edited(b'"chunk_size":64', b'"chunk_size":2097152'), "its header needs chunk_size, .*"),
        (edited(b'"plaintext_length":330', b'"plaintext_length":1e99'), "its header is not can.*"),
        (edited(b'"plaintext_length":330', b'"plaintext_length":274877906945'), "it has more ch.*"),
        (edited(b'"wrapped_key":"', b'"wrapped_key":"00'), "its header needs wrapped_key, 144 .*"),
        (lambda text: text.replace(text[-40:-2], text[-40:-2].upper()), "its header needs wrapp.*"),
        (lambda text: b"[1]", "its header is no JSON object"),
        (lambda text: b"", "its header is no JSON object"),
    ],
)
def test_a_header_has_one_spelling(
    edit: Callable[[bytes], bytes], reason: str, tmp_path: Path
) -> None:
    sealed = sealed_bytes()
    text = sealed[HEADER_AT : header_end(sealed)]
    assert edit(text) != text
    error = refusal(tmp_path / "a", with_header(sealed, edit(text)))
    assert isinstance(error, SealBroken)
    assert re.fullmatch(reason, error.reason), error.reason


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=5,
)


@given(st.dictionaries(st.sampled_from(sorted(header_of(sealed_bytes(signing_key=OWNER)))), JSON))
def test_whatever_a_field_holds_is_a_header_or_a_plain_refusal(changes: dict[str, Any]) -> None:
    fields = header_of(sealed_bytes(CONTENTS[:1], signing_key=OWNER)) | changes
    text = json.dumps(fields, sort_keys=True, separators=(",", ":")).encode()
    try:
        header = decode_header(text)
    except ValueError as refusal:
        assert str(refusal).startswith("its ")  # noqa: PT017
    else:
        assert header.encode() == text


@given(st.binary())
def test_whatever_the_bytes_are_they_are_refused_plainly(text: bytes) -> None:
    with pytest.raises(ValueError, match=r"^its "):
        decode_header(text)


def test_a_signature_cannot_be_taken_off_or_replaced(tmp_path: Path) -> None:
    sealed = sealed_bytes(signing_key=OWNER)
    fields = header_of(sealed)
    del fields["owner"]
    unsigned = with_header(sealed, canonical_json(fields))
    stripped = unsigned[: header_end(unsigned)] + sealed[header_end(sealed) + SIGNATURE_BYTES :]
    assert "its header was changed" in str(refusal(tmp_path / "a", stripped))
    other = Ed25519PrivateKey.generate()
    resigned = changed_header(sealed, owner=other.public_key().public_bytes_raw().hex())
    signed = resigned[: header_end(resigned)]
    resigned = signed + other.sign(signed) + resigned[len(signed) + SIGNATURE_BYTES :]
    assert "its header was changed" in str(refusal(tmp_path / "a", resigned))


def test_an_archive_that_changes_while_it_is_sealed_is_not_sealed() -> None:
    class Changing(io.BytesIO):
        """Other contents at the second reading."""

        readings = 0

        def seek(self, offset: int, whence: int = 0) -> int:
            self.readings += 1
            return super().seek(offset + (10 if self.readings == 2 else 0), whence)

    with pytest.raises(SealingError, match="changed while it was being sealed"):
        seal(Changing(CONTENTS), io.BytesIO(), bytearray(KEK), request())


def test_a_digest_that_the_key_holder_lied_about_is_noticed(tmp_path: Path) -> None:
    # `trusted_models` may rest on it.
    fields = header_of(sealed_bytes()) | {"plaintext_sha256": "00" * 32}
    path = tmp_path / "a"
    path.write_bytes(sealed_reference.seal(fields, CONTENTS, KEK, data_keys=b"d" * 64))
    with pytest.raises(SealBroken, match="its contents are not those whose digest its header"):
        open_bytes(path)


def test_a_file_that_changes_after_the_first_pass_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "a"
    sealed = sealed_bytes()
    path.write_bytes(sealed)
    file = open_sealed(path)
    contents = file.unlock(bytearray(KEK))
    contents.verify()
    reader = contents.reader()
    assert reader.read(10) == CONTENTS[:10]
    with path.open("r+b") as enemy:
        enemy.seek(chunks_at(sealed) + 2 * (CHUNK + CHUNK_TAG_BYTES))
        enemy.write(b"x")
    with pytest.raises(SealBroken, match="chunk 2 of 6"):
        reader.read()
    os.truncate(path, chunks_at(sealed) + 3 * (CHUNK + CHUNK_TAG_BYTES) + 5)
    reader.seek(3 * CHUNK)
    with pytest.raises(SealBroken, match="it ends inside chunk 3"):
        reader.read()
    file.close()
    file.close()
    with pytest.raises(OSError, match="Bad file descriptor"):
        contents.reader().read(1)


def test_the_reader_is_a_file(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive_zip:
        for number in range(20):
            archive_zip.writestr(f"{number}", random.Random(number).randbytes(500))
    path = tmp_path / "a"
    path.write_bytes(sealed_bytes(buffer.getvalue()))
    file = open_sealed(path)
    with file.unlock(bytearray(KEK)).reader() as reader:
        for offset, size in ((0, 5), (60, 10), (63, 200), (1, 0), (10_000, 99), (20_000, 1)):
            assert reader.seek(offset) == offset
            assert reader.read(size) == buffer.getvalue()[offset : offset + size]
        assert reader.seek(-3, os.SEEK_END) == len(buffer.getvalue()) - 3
        assert reader.seek(1, os.SEEK_CUR) == reader.tell()
        assert reader.read() == buffer.getvalue()[-2:]
        with pytest.raises(ValueError, match="negative"):
            reader.seek(-1)
        with zipfile.ZipFile(reader) as archive_zip:
            for number in reversed(range(20)):
                assert archive_zip.read(f"{number}") == random.Random(number).randbytes(500)
    file.close()


def test_what_is_no_plain_file_is_not_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path, tmp_path / "pipe"):
        with pytest.raises(SealBroken, match="it is no plain file"):
            open_sealed(path)


@pytest.mark.parametrize(
    "changes",
    [{"model_name": ""}, {"key_id": "kbs:///a/b"}, {"release": -1}, {"model_version": "a\0"}],
)
def test_what_no_reader_would_open_is_not_sealed(changes: dict[str, object]) -> None:
    with pytest.raises(SealingError, match="The archive cannot be sealed: "):
        sealed_bytes(**changes)


def test_a_header_round_trip() -> None:
    header = SealHeader("ä", "1", 0, "kbs:///a/b/c", bytes(72), bytes(7), 0, bytes(32), 64, KEK)
    assert decode_header(header.encode()) == header
    assert header.chunk_count == 1


MEASURE = """
import resource, sys
from pathlib import Path
from torchkeep.modelstore.sealed import open_sealed
file = open_sealed(Path(sys.argv[1]))
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
with file.unlock(bytearray(range(32))).verified() as reader:
    while reader.read(1 << 20):
        pass
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


def test_memory_does_not_grow_with_the_archive(tmp_path: Path) -> None:
    path, plain = tmp_path / "a", tmp_path / "plain"
    with plain.open("wb") as file:
        file.truncate(300 << 20)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with plain.open("rb") as source, path.open("wb") as sealed:
        seal(source, sealed, bytearray(KEK), request(chunk_size=1 << 20))
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 32 << 10
    run = subprocess.run(
        [sys.executable, "-c", MEASURE, str(path)], capture_output=True, text=True, check=True
    )
    assert int(run.stdout) < 32 << 10
