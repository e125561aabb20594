"""Dockerfile.tdx fits the rest of the repository; tests/system/test_image.py builds it."""

import re
import tomllib
from pathlib import Path

from torchkeep.runtime.container import CONFIG, VOLUME

ROOT = Path(__file__).resolve().parent.parent
DOCKERFILE = (ROOT / "Dockerfile.tdx").read_text()
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


def locked(name: str) -> dict[str, set[str]]:
    """Requirement -> hashes, of one lock."""
    text = (ROOT / "requirements" / name).read_text()
    blocks = re.findall(r"^([a-z].*?) \\\n((?:    --hash=.*\n)+)", text, re.MULTILINE)
    return {
        requirement: set(re.findall("sha256:[0-9a-f]{64}", rest)) for requirement, rest in blocks
    }


def test_the_lock_of_the_image_is_part_of_the_lock_that_is_tested() -> None:
    image, tested = locked("image.txt"), locked("torch.txt")
    assert image.items() <= tested.items()
    names = {requirement.partition("==")[0] for requirement in image}
    needed = {re.split("[<>=]", one)[0] for one in PROJECT["project"]["dependencies"]}
    assert needed | {"numpy", "pillow"} <= names
    tools = {"mypy", "pytest", "ruff", "hypothesis", "coverage", "scikit-learn", "httpx"}
    assert not names & tools
    assert [one for one in names if one.startswith(("torch", "nvidia", "cuda", "triton"))] == []


def test_the_engine_of_the_image_is_the_one_of_the_lock_built_for_cpus() -> None:
    (engine,) = re.findall(r'^ARG ENGINE="(.*)"$', DOCKERFILE, re.MULTILINE)
    versions = dict(one.split("==") for one in locked("torch.txt") if one.startswith("torch"))
    assert engine == f"torch=={versions['torch']}+cpu torchvision=={versions['torchvision']}+cpu"
    assert engine in (ROOT / "docs/container.md").read_text()


def test_what_the_image_is_built_from_is_let_through_and_nothing_else() -> None:
    everything, *lines = [
        line
        for line in (ROOT / ".dockerignore").read_text().splitlines()
        if line and not line.startswith("#")
    ]
    assert everything == "*"
    packages = {name.partition(".")[2] for name in PROJECT["tool"]["setuptools"]["packages"]}
    files = {"pyproject.toml", "README.md", "LICENSE", "requirements/image.txt"}
    let_through = {line.removeprefix("!") for line in lines if line.startswith("!")}
    assert let_through == packages | files | {"deploy/*.properties"}
    assert {line for line in lines if not line.startswith("!")} == {"**/__pycache__"}


def test_the_image_has_the_places_of_its_entry_point() -> None:
    names = ("HOME", "TEMP", "LOG_LOCATION", "METRICS_LOCATION")
    places = re.findall(rf"\b({'|'.join(names)})=(\S+)", DOCKERFILE)
    assert sorted(name for name, _ in places) == sorted(names)
    assert {str(Path(value).parent) for _, value in places} == {str(VOLUME)}
    assert CONFIG in DOCKERFILE.replace("/image/home", "/home")


def test_the_document_names_every_argument() -> None:
    document = (ROOT / "docs/container.md").read_text()
    arguments = set(re.findall(r"^ARG ([A-Z_]+)=", DOCKERFILE, re.MULTILINE)) - {"CA_BUNDLE"}
    assert {name for name in arguments if f"| `{name}` |" not in document} == set()
