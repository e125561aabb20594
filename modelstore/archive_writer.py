"""How an archive's files are written: as .mar, .tar.gz or a directory, always in one stroke.

Equal files give equal bytes: times, owners and permissions are fixed, the order is the caller's.
"""

import gzip
import shutil
import tarfile
import uuid
import zipfile
from collections.abc import Mapping
from io import BytesIO
from pathlib import Path
from typing import IO, TypeAlias, cast

ZIP_EPOCH = (1980, 1, 1, 0, 0, 0)  # the earliest time a zip can hold
FILE_MODE = 0o644

Content: TypeAlias = Path | bytes  # a file to copy, or the bytes themselves


def write_archive(
    target: Path, archive_format: str, top: str, entries: Mapping[str, Content]
) -> None:
    """Write `entries`, below a folder `top` where the format has one; replaces `target`.

    What was there stays until the new archive is complete.
    """
    partial = target.with_name(f".{uuid.uuid4().hex}.part")
    try:
        match archive_format:
            case "no-archive":
                _write_directory(partial, entries)
                if target.is_dir():
                    shutil.rmtree(target)
            case "tgz":
                _write_tar(partial, top, entries)
            case _:
                is_deflated = archive_format == "default"
                _write_zip(partial, entries, is_deflated)
        partial.replace(target)
    finally:
        if partial.is_dir():
            shutil.rmtree(partial)
        else:
            partial.unlink(missing_ok=True)


def _write_zip(path: Path, entries: Mapping[str, Content], is_deflated: bool) -> None:
    with zipfile.ZipFile(path, "x") as archive_zip:
        for name, content in entries.items():
            entry = zipfile.ZipInfo(name, ZIP_EPOCH)
            entry.compress_type = zipfile.ZIP_DEFLATED if is_deflated else zipfile.ZIP_STORED
            entry.external_attr = (0o100000 | FILE_MODE) << 16
            entry.file_size = _size(content)  # or entries above 2 GiB are refused
            with _open(content) as source, archive_zip.open(entry, "w") as sink:
                shutil.copyfileobj(source, sink, 1 << 20)


def _write_tar(path: Path, top: str, entries: Mapping[str, Content]) -> None:
    with (
        path.open("xb") as file,
        gzip.GzipFile(filename="", mode="wb", fileobj=file, mtime=0) as zipped,
        tarfile.open(fileobj=cast(IO[bytes], zipped), mode="w", format=tarfile.GNU_FORMAT) as tar,
    ):
        for name, content in entries.items():
            entry = tarfile.TarInfo(f"{top}/{name}")
            entry.mode = FILE_MODE
            entry.size = _size(content)
            with _open(content) as source:
                tar.addfile(entry, source)


def _write_directory(path: Path, entries: Mapping[str, Content]) -> None:
    for name, content in entries.items():
        target = path / name
        target.parent.mkdir(parents=True, exist_ok=True)
        with _open(content) as source, target.open("xb") as sink:
            shutil.copyfileobj(source, sink, 1 << 20)


def _size(content: Content) -> int:
    return len(content) if isinstance(content, bytes) else content.stat().st_size


def _open(content: Content) -> IO[bytes]:
    return BytesIO(content) if isinstance(content, bytes) else content.open("rb")
