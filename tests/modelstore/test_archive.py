"""What is refused in an archive, and that refusing leaves no harm."""

import contextlib
import gzip
import io
import os
import random
import stat
import struct
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from torchkeep.modelstore import archive as archive_module
from torchkeep.modelstore.archive import Limits, Packed, unpack
from torchkeep.modelstore.errors import InvalidArchive, ModelStoreError, UnreadableArchive

SMALL = Limits(entries=5, total_bytes=10_000, ratio=100)


def write_zip(path: Path, *entries: tuple[str | zipfile.ZipInfo, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive_zip:
        for name, content in entries:
            archive_zip.writestr(name, content)
    return path


def write_tar(path: Path, *entries: tuple[str | tarfile.TarInfo, bytes]) -> Path:
    with tarfile.open(path, "w:gz", format=tarfile.GNU_FORMAT) as archive_tar:
        for name, content in entries:
            entry = tarfile.TarInfo(name) if isinstance(name, str) else name
            if entry.isreg():
                entry.size = len(content)
            archive_tar.addfile(entry, io.BytesIO(content))
    return path


def unpack_file(path: Path, directory: Path, limits: Limits, *checks: Callable[[], None]) -> None:
    with path.open("rb") as file:
        packed = Packed(file, path.name, path.stat().st_size, path.suffix == ".mar")
        unpack(packed, "the-url", directory, limits, *checks)


def unpacked(path: Path, limits: Limits | None = None) -> dict[str, bytes]:
    """The files that come out of an archive."""
    directory = path.parent / "out"
    directory.mkdir()
    unpack_file(path, directory, limits or Limits())
    return {
        file.relative_to(directory).as_posix(): file.read_bytes()
        for file in directory.rglob("*")
        if file.is_file()
    }


def refusal(path: Path, limits: Limits | None = None) -> str:
    with pytest.raises(InvalidArchive) as caught:
        unpacked(path, limits)
    return str(caught.value)


def zip_entry(name: str, mode: int = 0) -> zipfile.ZipInfo:
    entry = zipfile.ZipInfo(name)
    entry.external_attr = mode << 16
    return entry


def tar_entry(name: str, kind: bytes, link: str = "") -> tarfile.TarInfo:
    entry = tarfile.TarInfo(name)
    entry.type, entry.linkname = kind, link
    return entry


def test_mar_unpacks_to_its_files(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "m.mar", ("a", b"1"), ("d/b", b"2"), ("e/", b""), ("e/./c", b"3"))
    assert unpacked(path) == {"a": b"1", "d/b": b"2", "e/c": b"3"}


def test_tar_loses_its_top_folder(tmp_path: Path) -> None:
    path = write_tar(
        tmp_path / "m.tar.gz",
        (tar_entry("m", tarfile.DIRTYPE), b""),
        ("m/a", b"1"),
        ("m/d/b", b"2"),
        ("file-at-the-top", b"3"),
    )
    assert unpacked(path) == {"a": b"1", "d/b": b"2", "file-at-the-top": b"3"}


def test_each_entry_of_a_tar_loses_its_own_first_component(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "m.tar.gz", ("MAR-INF/MANIFEST.json", b"1"), ("m/d/b", b"2"))
    assert unpacked(path) == {"MANIFEST.json": b"1", "d/b": b"2"}


def test_a_tar_of_nothing_has_no_entries(tmp_path: Path) -> None:
    for content in (b"", bytes(10240)):
        (tmp_path / "m.tar.gz").write_bytes(gzip.compress(content))
        assert unpacked(tmp_path / "m.tar.gz") == {}
        (tmp_path / "out").rmdir()


def test_tar_of_the_current_directory_loses_only_the_dot(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "m.tar.gz", ("./a", b"1"), ("./d/b", b"2"))
    assert unpacked(path) == {"a": b"1", "d/b": b"2"}


def test_any_file_that_is_no_mar_is_a_tar(tmp_path: Path) -> None:
    assert unpacked(write_tar(tmp_path / "m.model", ("m/a", b"1"))) == {"a": b"1"}


def test_unpacked_files_are_for_the_owner_only(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "m.mar", (zip_entry("d/a", stat.S_IFREG | 0o6777), b"1"))
    unpacked(path)
    assert stat.S_IMODE((tmp_path / "out/d/a").stat().st_mode) == 0o600
    assert stat.S_IMODE((tmp_path / "out/d").stat().st_mode) == 0o700


def test_long_names_and_many_entries_fit(tmp_path: Path) -> None:
    names = [f"m/{'d' * 200}/{'n' * 200}-{index}" for index in range(300)]
    path = write_tar(tmp_path / "m.tar.gz", *((name, b"x") for name in names))
    assert len(unpacked(path)) == 300


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("/etc/passwd", "absolute"),
        ("//etc/passwd", "absolute"),
        ("../a", "'..'"),
        ("m/../../a", "'..'"),
        ("m/..", "'..'"),
        ("..\\a", "backslash"),
        ("m/a\\b", "backslash"),
        ("m/" + "x/" * 600 + "a", "characters"),
    ],
)
@pytest.mark.parametrize("is_zip", [True, False])
def test_names_that_leave_the_directory_are_refused(
    tmp_path: Path, name: str, reason: str, is_zip: bool
) -> None:
    if is_zip:
        path = write_zip(tmp_path / "m.mar", ("ok", b""), (name, b"1"))
    else:
        path = write_tar(tmp_path / "m.tar.gz", ("m/ok", b""), (name, b"1"))
    text = refusal(path)
    assert path.name in text
    assert reason in text
    assert repr(name[:100])[:-1] in text


def test_a_name_with_nul_is_refused(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "m.mar", ("a?b", b"1"))
    path.write_bytes(path.read_bytes().replace(b"a?b", b"a\0b"))
    assert "NUL" in refusal(path)


@pytest.mark.parametrize(
    "kind",
    [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, b"Z"],
)
def test_a_tar_of_links_and_devices_is_refused(tmp_path: Path, kind: bytes) -> None:
    path = write_tar(tmp_path / "m.tar.gz", (tar_entry("m/x", kind, "/etc/passwd"), b""))
    assert "entry 'm/x' is neither a file nor a directory" in refusal(path)


@pytest.mark.parametrize(
    "mode", [stat.S_IFLNK, stat.S_IFIFO, stat.S_IFCHR, stat.S_IFSOCK, stat.S_IFDIR]
)
def test_a_mar_of_links_and_devices_is_refused(tmp_path: Path, mode: int) -> None:
    path = write_zip(tmp_path / "m.mar", (zip_entry("x", mode | 0o777), b"/etc/passwd"))
    assert "entry 'x' is neither a file nor a directory" in refusal(path)


@pytest.mark.parametrize(
    ("first", "second"), [("m/a", "m/a"), ("m/a", "m/a/b"), ("m/a/b", "m/a"), ("m/a", "n/a")]
)
def test_colliding_names_are_refused_in_a_tar(tmp_path: Path, first: str, second: str) -> None:
    path = write_tar(tmp_path / "m.tar.gz", (first, b"1"), (second, b"2"))
    assert f"entry {second!r} collides" in refusal(path)


@pytest.mark.parametrize(
    ("first", "second"), [("a", "a"), ("a", "./a"), ("a", "a/b"), ("a/b", "a"), ("a", "a/")]
)
@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_colliding_names_are_refused_in_a_mar(tmp_path: Path, first: str, second: str) -> None:
    path = write_zip(tmp_path / "m.mar", (first, b"1"), (second, b"2" * (second[-1] != "/")))
    assert f"entry {second!r} collides" in refusal(path)


def test_a_directory_may_be_named_twice(tmp_path: Path) -> None:
    folder = tar_entry("m/d", tarfile.DIRTYPE)
    path = write_tar(tmp_path / "m.tar.gz", (folder, b""), (folder, b""), ("m/d/a", b"1"))
    assert unpacked(path) == {"d/a": b"1"}


def test_an_encrypted_entry_is_refused(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "m.mar", ("a", b"1"))
    packed = bytearray(path.read_bytes())
    central = packed.index(b"PK\1\2")
    packed[6] |= 1
    packed[central + 8] |= 1
    path.write_bytes(packed)
    assert "entry 'a' is encrypted" in refusal(path)


@pytest.mark.parametrize("is_zip", [True, False])
def test_the_limit_of_entries(tmp_path: Path, is_zip: bool) -> None:
    def write(count: int) -> Path:
        entries = [(f"m/{index}", b"") for index in range(count)]
        if is_zip:
            return write_zip(tmp_path / "m.mar", *entries)
        return write_tar(tmp_path / "m.tar.gz", *entries)

    assert len(unpacked(write(5), SMALL)) == 5
    (tmp_path / "out").rename(tmp_path / "fits")
    assert "entry 'm/5' is one more than the limit of 5" in refusal(write(6), SMALL)


@pytest.mark.parametrize("is_zip", [True, False])
def test_the_limit_of_bytes(tmp_path: Path, is_zip: bool) -> None:
    def write(length: int) -> Path:
        if is_zip:
            return write_zip(tmp_path / "m.mar", ("m/a", b"x" * 6000), ("m/b", b"x" * length))
        return write_tar(tmp_path / "m.tar.gz", ("m/a", b"x" * 6000), ("m/b", b"x" * length))

    # the rest of a tar, its padding, counts as well
    limits = SMALL if is_zip else Limits(total_bytes=10_000 + tarfile.RECORDSIZE)
    unpacked(write(4000), limits)
    (tmp_path / "out").rename(tmp_path / "fits")
    length = 4001 if is_zip else 4001 + tarfile.RECORDSIZE
    assert "exceeds the limit of" in refusal(write(length), limits)


def test_the_limit_of_the_ratio(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_zip(tmp_path / "m.mar", ("a", bytes(1_000_000)))
    unpacked(path)
    (tmp_path / "out").rename(tmp_path / "fits")
    monkeypatch.setattr(archive_module, "RATIO_FREE_BYTES", 999_999)
    assert "200 times the size" in refusal(path)


def test_declared_sizes_are_not_believed(tmp_path: Path) -> None:
    """A bomb that declares one byte ends at its declared size, and fails its checksum."""
    path = write_zip(tmp_path / "m.mar", ("a", bytes(100_000)))
    packed = bytearray(path.read_bytes())
    central = packed.index(b"PK\1\2")
    struct.pack_into("<L", packed, 22, 1)
    struct.pack_into("<L", packed, central + 24, 1)
    path.write_bytes(packed)
    with pytest.raises(UnreadableArchive):
        unpacked(path, SMALL)
    assert sum(file.stat().st_size for file in (tmp_path / "out").rglob("*")) <= 1


def test_a_giant_central_directory_is_refused_before_it_is_parsed(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "m.mar", *((f"{index}" + "x" * 200, b"") for index in range(9000)))
    assert "the list of entries is too large" in refusal(path, SMALL)


def test_a_giant_tar_header_is_refused_before_it_is_read(tmp_path: Path) -> None:
    header = tarfile.TarInfo("m/x")
    header.type, header.size = tarfile.XHDTYPE, 1 << 33
    with gzip.open(tmp_path / "m.tar.gz", "wb", compresslevel=1) as file:
        file.write(header.tobuf(tarfile.GNU_FORMAT) + bytes(8 << 20))
    assert "the list of entries is too large" in refusal(tmp_path / "m.tar.gz", SMALL)


def test_a_mar_that_is_no_zip_has_no_entries(tmp_path: Path) -> None:
    """TorchServe: the answer to it is that the model has no name."""
    for content in (b"", b"P", b"not a zip at all"):
        (tmp_path / "m.mar").write_bytes(content)
        assert unpacked(tmp_path / "m.mar") == {}
        (tmp_path / "out").rmdir()


@pytest.mark.parametrize("write", [write_zip, write_tar])
def test_a_truncated_archive_is_unreadable(tmp_path: Path, write: Callable[..., Path]) -> None:
    whole = write(
        tmp_path / ("m.mar" if write is write_zip else "m.tar.gz"),
        ("m/a", random.Random(1).randbytes(5000)),
        ("m/b", b"2"),
    )
    content = whole.read_bytes()
    for length in (3, 100, len(content) // 2, len(content) - 1):
        whole.write_bytes(content[:length])
        with pytest.raises(UnreadableArchive, match=r"^Failed to save model: the-url : .*whole"):
            unpack_file(whole, tmp_path_of(tmp_path, length), Limits())


def tmp_path_of(tmp_path: Path, length: int) -> Path:
    directory = tmp_path / f"out-{length}"
    directory.mkdir()
    return directory


@pytest.mark.parametrize("content", [b"", b"no gzip", gzip.compress(b"x" * 99)])
def test_a_file_that_is_no_tar_is_unreadable(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "m.tar.gz").write_bytes(content)
    with pytest.raises(UnreadableArchive):
        unpacked(tmp_path / "m.tar.gz")


def test_a_damaged_header_is_no_end(tmp_path: Path) -> None:
    tar = bytearray(gzip.decompress(write_tar(tmp_path / "m", ("m/a", b"1")).read_bytes()))
    tar[1024:1536] = b"x" * 512
    (tmp_path / "m.tar.gz").write_bytes(gzip.compress(tar))
    with pytest.raises(UnreadableArchive):
        unpacked(tmp_path / "m.tar.gz")


def test_an_unknown_compression_is_unreadable(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "m.mar", "w", zipfile.ZIP_LZMA) as archive_zip:
        archive_zip.writestr("a", b"1")
    with pytest.raises(UnreadableArchive):
        unpacked(tmp_path / "m.mar")


def test_unpacking_stops_when_it_is_abandoned(tmp_path: Path) -> None:
    class Abandoned(Exception):
        pass

    def abandon() -> None:
        raise Abandoned

    path = write_zip(tmp_path / "m.mar", ("a", b"1"))
    with pytest.raises(Abandoned):
        unpack_file(path, tmp_path, Limits(), abandon)
    assert os.listdir(tmp_path) == ["m.mar"]


SEEDS = {
    "m.mar": write_zip,
    "m.tar.gz": write_tar,
}


@settings(
    max_examples=150,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(data=st.data(), kind=st.sampled_from(sorted(SEEDS)))
def test_damaged_archives_fail_as_they_should(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject, kind: str
) -> None:
    """Whatever bytes arrive: our own errors only, and nothing outside the directory."""
    root = tmp_path_factory.mktemp("fuzz")
    path = SEEDS[kind](root / kind, ("m/a", b"content"), ("m/d/b", b"more" * 300))
    content = bytearray(path.read_bytes())
    if kind == "m.tar.gz":
        content = bytearray(gzip.decompress(content)[:4096])
    for _ in range(data.draw(st.integers(1, 6))):
        position = data.draw(st.integers(0, len(content) - 1))
        content[position] = data.draw(st.integers(0, 255))
    if kind == "m.tar.gz" and data.draw(st.booleans()):
        fix_tar_checksum(content)
    path.write_bytes(gzip.compress(content, 1) if kind == "m.tar.gz" else content)
    directory = root / "out"
    directory.mkdir()
    with contextlib.suppress(ModelStoreError):
        unpack_file(path, directory, SMALL)
    assert sorted(os.listdir(root)) == sorted([kind, "out"])
    assert not any(found.is_symlink() for found in root.rglob("*"))


def fix_tar_checksum(tar: bytearray) -> None:
    tar[148:156] = b" " * 8
    tar[148:156] = b"%06o\0 " % sum(tar[:512])
