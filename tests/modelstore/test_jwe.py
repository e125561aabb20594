"""KServe's archives: written here by the RFC, opened by us."""

import json
import os
import random
import re
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import pytest
from sealing import KEK, encoded, jwe_bytes

from torchkeep.modelstore import jwe
from torchkeep.modelstore.errors import KeyUnavailable, ModelStoreError, SealBroken
from torchkeep.modelstore.jwe import PIECE_CHARS, is_jwe, open_jwe

CONTENTS = random.Random(5).randbytes(3000)


def open_bytes(path: Path, kek: bytes = KEK) -> bytes:
    file = open_jwe(path)
    try:
        contents = file.unlock(bytearray(kek))
        try:
            with contents.verified() as reader:
                opened = reader.read()
            assert contents.length == len(opened)
            return opened
        finally:
            contents.close()
    finally:
        file.close()
        file.close()


def refusal(path: Path, content: bytes, kek: bytes = KEK) -> ModelStoreError:
    path.write_bytes(content)
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(ModelStoreError) as caught:
        open_bytes(path, kek)
    assert len(os.listdir("/proc/self/fd")) == before
    return caught.value


PIECE = PIECE_CHARS // 4 * 3


@pytest.mark.parametrize("length", [0, 1, 2, 3, 3000, PIECE - 1, PIECE, PIECE + 1, 2 * PIECE + 5])
@pytest.mark.parametrize("end", [b"", b"\n"])
def test_what_was_encrypted_comes_out(length: int, end: bytes, tmp_path: Path) -> None:
    contents = random.Random(length).randbytes(length)
    path = tmp_path / "m.mar.jwe"
    path.write_bytes(jwe_bytes(contents) + end)
    assert is_jwe(path.read_bytes()[:3])
    assert open_bytes(path) == contents


@pytest.mark.skipif(find_spec("jwcrypto") is None, reason="jwcrypto is not installed")
def test_what_jwcrypto_encrypts_comes_out(tmp_path: Path) -> None:
    from jwcrypto import jwe as oracle
    from jwcrypto import jwk

    token = oracle.JWE(CONTENTS, json.dumps({"alg": "A256KW", "enc": "A256GCM"}))
    token.add_recipient(jwk.JWK(kty="oct", k=encoded(KEK).decode()))
    path = tmp_path / "m.jwe"
    path.write_text(token.serialize(compact=True))
    assert open_bytes(path) == CONTENTS


@pytest.mark.parametrize(
    ("kid", "key_id"),
    [
        ({}, ""),
        ({"kid": "kbs:///a/b/c"}, "kbs:///a/b/c"),
        ({"kid": "a thumbprint"}, ""),
        ({"kid": 1}, ""),
        ({"kid": "kbs:///a/../c"}, ""),
    ],
)
def test_a_key_id_is_taken_where_it_is_one(
    kid: dict[str, object], key_id: str, tmp_path: Path
) -> None:
    path = tmp_path / "a"
    path.write_bytes(jwe_bytes(CONTENTS, **kid))
    file = open_jwe(path)
    assert file.key_id == key_id
    file.close()


def test_no_character_can_be_changed(tmp_path: Path) -> None:
    sealed = jwe_bytes(CONTENTS[:90])
    for position in range(len(sealed)):
        changed = bytearray(sealed)
        changed[position] = ord("A") if sealed[position] != ord("A") else ord("z")
        refusal(tmp_path / "a", bytes(changed))
    for length in range(len(sealed)):
        refusal(tmp_path / "a", sealed[:length])


def with_junk(sealed: bytes) -> bytes:
    return sealed[:-60] + b"!" + sealed[-59:]


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (lambda: b"eyJ", "it is no JWE in compact form"),
        (lambda: b"eyJ" + b"A" * 10_000, "it is no JWE in compact form"),
        (lambda: b"eyJ.a.b.c", "its protected header is no JSON in base64"),
        (lambda: encoded(b"[1]") + b".a.b.c.d", "its protected header is no JSON object"),
        (lambda: with_junk(jwe_bytes(CONTENTS)), "it has something that is no base64 of .*"),
        (lambda: encoded(b'{"a') + b".a.b.c.d", "its protected header is no JSON in base64"),
        (
            lambda: jwe_bytes(CONTENTS, alg="dir"),
            "its alg and enc are others than A256KW and A256GCM",
        ),
        (
            lambda: jwe_bytes(CONTENTS, enc="A128GCM"),
            "its alg and enc are others than A256KW and A256GCM",
        ),
        (
            lambda: jwe_bytes(CONTENTS, zip="DEF"),
            "its protected header has zip, which is not understood",
        ),
        (
            lambda: jwe_bytes(CONTENTS, crit=["b"]),
            "its protected header has crit, which is not understood",
        ),
        (lambda: jwe_bytes(CONTENTS)[:-5], "it is no JWE in compact form, or was cut off"),
        (lambda: jwe_bytes(CONTENTS) + b"AAAA", "it is no JWE in compact form, or was cut off"),
        (lambda: jwe_bytes(CONTENTS) + b".AA", "it is no JWE in compact form, or was cut off"),
        (
            lambda: jwe_bytes(CONTENTS).replace(b".", b".!", 3),
            "it has something that is no base64 of .*",
        ),
        (
            lambda: jwe_bytes(CONTENTS).translate(bytes.maketrans(b"-_", b"+/")),
            "it has something .*",
        ),
        (
            lambda: jwe_bytes(CONTENTS).replace(b".", b".AAAA", 1),
            "it has 43 bytes where 40 are due",
        ),
    ],
)
def test_what_is_no_jwe_of_kserves_kind(
    content: Callable[[], bytes], reason: str, tmp_path: Path
) -> None:
    error = refusal(tmp_path / "a", content())
    assert isinstance(error, SealBroken), error

    assert re.fullmatch(reason, error.reason), error.reason


def test_the_wrong_key(tmp_path: Path) -> None:
    for kek in (bytes(32), KEK[:16]):
        error = refusal(tmp_path / "a", jwe_bytes(CONTENTS), kek)
        assert isinstance(error, KeyUnavailable)
        assert error.step == "wrong key"


def test_one_that_is_too_long_for_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a"
    path.write_bytes(jwe_bytes(CONTENTS))
    monkeypatch.setattr(jwe, "MAX_FILE_BYTES", path.stat().st_size)
    assert open_bytes(path) == CONTENTS
    error = refusal(path, jwe_bytes(CONTENTS) + b"\n")
    assert "at most" in str(error)


def test_what_was_opened_cannot_be_changed_by_anybody(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(jwe_bytes(CONTENTS))
    file = open_jwe(path)
    contents = file.unlock(bytearray(KEK))
    contents.verify()
    with pytest.raises(OSError, match="not permitted"):
        os.pwrite(contents.reader().fileno(), b"x", 0)
    contents.close()
    file.close()


def test_what_is_no_plain_file_is_not_opened(tmp_path: Path) -> None:
    with pytest.raises(SealBroken, match="it is no plain file"):
        open_jwe(tmp_path)
