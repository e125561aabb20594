"""Fills a directory with what a handler under test loads."""

import shutil
from collections.abc import Mapping
from pathlib import Path
from urllib import request
from urllib.parse import urlparse

REPO_DIR = Path(__file__).parents[4]  # the folder that holds `ts`


def copy_files(src_dir: Path, dst_dir: Path, files: Mapping[str, str]) -> None:
    """Copy files by their names in `src_dir`, to their names in `dst_dir`."""
    for source, target in files.items():
        shutil.copy(src_dir / source, dst_dir / target)


def download_model(model_url: str, model_dir: Path) -> None:
    """Download a file into `model_dir`, unless one of its name is there."""
    target = model_dir / Path(urlparse(model_url).path).name
    if not target.exists():
        request.urlretrieve(model_url, target)
