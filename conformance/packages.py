"""Handlers that lie in packages of PyPI: run as they are, and not kept in this project."""

import subprocess
import sys
import zipfile
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory

SMALL_WHEEL = "mlflow-torchserve==0.1.0"  # 18 kB
DOWNLOAD_LIMIT_S = 120.0


class PackageMissing(Exception):
    """A wheel cannot be had here; the text says why, and what would help."""


def unpacked_wheel(requirement: str, directory: Path) -> Path:
    """Download this wheel, without what it depends on, and unpack it into `directory`."""
    if find_spec("pip") is None:
        raise PackageMissing(f"{requirement}: pip is not installed beside {sys.executable}")
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check"]
    command += ["--no-deps", "--only-binary", ":all:", "--retries", "1", requirement]
    with TemporaryDirectory() as downloads:
        try:
            done = subprocess.run(
                [*command, "--dest", downloads],
                capture_output=True,
                text=True,
                timeout=DOWNLOAD_LIMIT_S,
            )
        except subprocess.TimeoutExpired as error:
            raise PackageMissing(f"{requirement}: no download in {error.timeout:g} s") from error
        if done.returncode != 0:
            reason = (done.stderr.strip().splitlines() or ["pip said nothing"])[-1]
            raise PackageMissing(f"{requirement} is not to be had, is there a network? {reason}")
        (wheel,) = Path(downloads).glob("*.whl")
        with zipfile.ZipFile(wheel) as files:
            files.extractall(directory)
    return directory


@cache
def why_no_packages() -> str:
    """Why nothing can be installed from PyPI here; empty where it can."""
    with TemporaryDirectory() as directory:
        try:
            unpacked_wheel(SMALL_WHEEL, Path(directory))
        except PackageMissing as error:
            return str(error)
    return ""
