"""The environment of the real TorchServe: one that is given, or one of our own making."""

import re
import shutil
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

JAVA_VERSION = 17
# The last four are what TorchServe's workers import without asking for them.
PACKAGES = (
    "torchserve==0.12.0",
    "torch-model-archiver==0.12.0",
    "captum",
    "numpy",
    "pyyaml",
    "setuptools",
)


class ReferenceMissing(Exception):
    """TorchServe cannot be run here; the message is the one line that says what to install."""


def missing_programs() -> list[str]:
    """What to install, a line each, before anything can be compared."""
    lines = []
    if shutil.which("wrk") is None:
        lines.append("wrk is not installed: apt-get install wrk")
    if missing := java_missing():
        lines.append(missing)
    return lines


def java_missing() -> str | None:
    """What to install where there is no Java that TorchServe runs on; None where there is."""
    if java_version() >= JAVA_VERSION:
        return None
    return "TorchServe needs Java 17: apt-get install openjdk-17-jre-headless"


def java_version() -> int:
    """The major version of the `java` on the path; 0 where there is none."""
    if shutil.which("java") is None:
        return 0
    run = subprocess.run(["java", "-version"], capture_output=True, text=True)
    found = re.search(r'version "(\d+)', run.stderr + run.stdout)
    return int(found[1]) if found else 0


def reference(given: Path | None, build_dir: Path) -> Path:
    """The directory of the virtual environment that holds TorchServe."""
    directory = given.resolve() if given else build_dir / "reference"
    if (directory / "bin" / "torchserve").exists():
        return directory
    if given:
        raise ReferenceMissing(
            f"{directory} holds no bin/torchserve: name the directory of a virtual environment"
            " with torchserve 0.12.0, torch and torchvision, or leave REFERENCE out"
        )
    return _create(directory)


def _create(directory: Path) -> Path:
    packages = [*PACKAGES, _same_as_ours("torch"), _same_as_ours("torchvision")]
    print(f"Creating {directory} with {' '.join(packages)} ...")  # noqa: T201
    try:
        subprocess.run([sys.executable, "-m", "venv", str(directory)], check=True)
        pip = [str(directory / "bin" / "python"), "-m", "pip", "install", "--quiet", *packages]
        subprocess.run(pip, check=True)
    except subprocess.CalledProcessError as error:
        shutil.rmtree(directory, ignore_errors=True)
        raise ReferenceMissing("TorchServe could not be installed, see above") from error
    except BaseException:
        # Interrupted: half an environment would pass for a whole one the next time.
        shutil.rmtree(directory, ignore_errors=True)
        raise
    return directory


def _same_as_ours(package: str) -> str:
    """The release that our own environment has: a comparison of servers, not of torches."""
    try:
        return f"{package}=={version(package).partition('+')[0]}"
    except PackageNotFoundError:
        raise ReferenceMissing(f"{package} is not installed here: make setup") from None
