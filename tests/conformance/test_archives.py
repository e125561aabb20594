"""The archives of the cases are packed as the real torch-model-archiver 0.12 packs them.

layouts.json says what it wrote: run this file as a program, in the repository, with
TORCHKEEP_REFERENCE naming an environment that has it, to write it again.
"""

import json
import os
import sys
import tarfile
import zipfile
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

from conformance.archives import build_archives

LAYOUTS = Path(__file__).with_name("layouts.json")
WITH_WEIGHTS = ("mlp", "text", "many_files", "captum_flowers")  # which torch writes
NAMES = (
    *("echo", "echo_v2", "echo_config", "echo_tgz", "echo_dir", "entry", "failures", "silent"),
    *("load_value_error", "word_lengths", *WITH_WEIGHTS),
)


def layout(archive: Path) -> dict[str, Any]:
    """The entries with their modes and compression, and the manifest but for its date."""
    manifest_path = "MAR-INF/MANIFEST.json"
    if archive.is_dir():
        entries = {str(p.relative_to(archive)): "" for p in archive.rglob("*") if p.is_file()}
        manifest = (archive / manifest_path).read_bytes()
    elif archive.suffix == ".gz":
        with tarfile.open(archive) as tar:
            entries = {one.name: f"type {one.type.decode()}" for one in tar}
            member = tar.extractfile(f"{archive.name.removesuffix('.tar.gz')}/{manifest_path}")
            assert member is not None
            manifest = member.read()
    else:
        with zipfile.ZipFile(archive) as zipped:
            entries = {
                one.filename: f"mode {one.external_attr >> 16:o}, method {one.compress_type}"
                for one in zipped.infolist()
            }
            manifest = zipped.read(manifest_path)
    document = json.loads(manifest)
    del document["createdOn"]
    return {"entries": dict(sorted(entries.items())), "manifest": document}


def layouts(packed_by: Path | None, *names: str) -> dict[str, Any]:
    with TemporaryDirectory() as store:
        built = build_archives(Path(store), names, packed_by)
        return {name: layout(path) for name, path in built.items()}


def as_parameter(name: str) -> Any:
    return pytest.param(name, marks=[pytest.mark.torch] if name in WITH_WEIGHTS else [])


@pytest.mark.parametrize("name", [as_parameter(name) for name in NAMES])
def test_an_archive_of_a_case_is_as_the_real_archiver_packs_it(name: str) -> None:
    assert layouts(None, name) == {name: json.loads(LAYOUTS.read_text())[name]}


@pytest.mark.torch
@pytest.mark.skipif(
    not os.environ.get("TORCHKEEP_REFERENCE"),
    reason="TORCHKEEP_REFERENCE names no environment with the real torch-model-archiver",
)
def test_the_layouts_are_those_of_the_real_archiver() -> None:
    reference = Path(os.environ["TORCHKEEP_REFERENCE"])
    assert layouts(reference, *NAMES) == json.loads(LAYOUTS.read_text())


if __name__ == "__main__":
    found = layouts(Path(os.environ["TORCHKEEP_REFERENCE"]), *NAMES)
    LAYOUTS.write_text(json.dumps(found, indent=1) + "\n")
    sys.stdout.write(f"{LAYOUTS.name}: {len(found)} layouts\n")
