"""What our archiver packs, in each of its formats, is served by the real TorchServe."""

import os
from pathlib import Path

import pytest
import requests
from reference import real_torchserve

from torchkeep.modelstore.archiver import ARCHIVE_SUFFIXES, ArchiveParts, pack

HANDLER = """
import helper

def handle(data, context):
    version = context.manifest["model"]["modelVersion"]
    return data and [f"{helper.WORD} {version} {context.model_yaml_config['word']}" for _ in data]
"""


@pytest.mark.skipif(
    not os.environ.get("TORCHKEEP_REFERENCE"),
    reason="TORCHKEEP_REFERENCE names no environment with the real TorchServe",
)
def test_the_real_torchserve_serves_our_archives(tmp_path: Path) -> None:
    parts = tmp_path / "parts"
    for name, content in {
        "handler.py": HANDLER,
        "extra/helper.py": "WORD = 'packed'",
        "config.yaml": "minWorkers: 1\nmaxWorkers: 1\nword: here",
    }.items():
        (parts / name).parent.mkdir(parents=True, exist_ok=True)
        (parts / name).write_text(content)
    store = tmp_path / "store"
    store.mkdir()
    packed = [
        pack(
            ArchiveParts(
                f"m-{archive_format}",
                "2.0",
                str(parts / "handler.py"),
                extra_files=[str(parts / "extra")],
                config_file=str(parts / "config.yaml"),
            ),
            store,
            archive_format,
        )
        for archive_format in ARCHIVE_SUFFIXES
    ]
    models = tuple(
        f"m-{archive_format}={path.name}"
        for archive_format, path in zip(ARCHIVE_SUFFIXES, packed, strict=True)
    )
    with real_torchserve((), models, tmp_path) as server:
        for archive_format in ARCHIVE_SUFFIXES:
            url = f"{server.inference}/predictions/m-{archive_format}"
            assert requests.post(url, data=b"x", timeout=60).text == "packed 2.0 here"
