"""TorchServe's Python interface to the archiver: what it packs, and what it raises."""

import inspect
import json
import sys
import zipfile
from argparse import Namespace
from pathlib import Path
from typing import Any

import pytest

from model_archiver import ModelArchiver, ModelArchiverConfig, ModelArchiverError
from model_archiver.manifest_components.manifest import RuntimeType
from model_archiver.model_archiver_error import ModelArchiverError as SameError
from model_archiver.model_packaging import generate_model_archive, package_model
from model_archiver.model_packaging_utils import ModelExportUtils
from torchkeep.modelstore.manifest import RUNTIMES


@pytest.fixture(autouse=True)
def _parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("h.py", "w.pt", "a.txt", "b.txt"):
        Path(name).write_text(name)


def config(**changes: Any) -> ModelArchiverConfig:
    named: dict[str, Any] = {"model_name": "m", "handler": "h.py", "version": "1.0"}
    return ModelArchiverConfig(**{**named, "export_path": ".", **changes})


def test_an_archive_is_written() -> None:
    generate_model_archive(config(serialized_file="w.pt", extra_files="a.txt,b.txt"))
    with zipfile.ZipFile("m.mar") as archive:
        assert archive.namelist() == ["a.txt", "b.txt", "h.py", "w.pt", "MAR-INF/MANIFEST.json"]


def test_the_class_does_the_same() -> None:
    ModelArchiver.generate_model_archive(config(archive_format="no-archive"))
    assert (Path("m") / "h.py").read_text() == "h.py"


def test_without_a_config_the_command_line_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    flags = ["--model-name", "n", "-v", "1", "--handler", "h", "--archive-format", "tgz"]
    monkeypatch.setattr(sys, "argv", ["torch-model-archiver", *flags])
    generate_model_archive()
    assert Path("n.tar.gz").exists()


def manifest_in(archive_path: str) -> Any:
    with zipfile.ZipFile(archive_path) as archive:
        return json.loads(archive.read("MAR-INF/MANIFEST.json"))


def test_a_script_may_write_the_manifest_itself() -> None:
    parts = config(serialized_file="w.pt", model_file="a.txt")
    manifest = json.loads(ModelExportUtils.generate_manifest_json(parts))
    assert manifest["runtime"] == "python"
    assert manifest["model"] == {
        "modelName": "m",
        "serializedFile": "w.pt",
        "handler": "h.py",
        "modelFile": "a.txt",
        "modelVersion": "1.0",
    }
    manifest["description"] = "its own"
    package_model(parts, json.dumps(manifest))
    assert manifest_in("m.mar") == manifest


def test_a_script_written_for_an_earlier_archiver_packs() -> None:
    """As mmpretrain2torchserve.py of mmpretrain 1.2.0 does: it knows no config_file.

    TorchServe 0.12 stops there with an AttributeError.
    """
    flags = Namespace(
        model_file="a.txt",
        serialized_file="w.pt",
        handler=str(Path.cwd() / "h.py"),
        model_name="m",
        version="1.0",
        export_path=".",
        force=False,
        requirements_file=None,
        extra_files=None,
        runtime="python",
        archive_format="default",
    )
    package_model(flags, ModelExportUtils.generate_manifest_json(flags))
    assert manifest_in("m.mar")["model"]["handler"] == "h.py"
    with pytest.raises(ModelArchiverError, match=r"m\.mar already exists"):
        package_model(flags, "{}")


@pytest.mark.parametrize(
    ("changes", "error", "text"),
    [
        ({"model_name": "a b"}, ModelArchiverError, "Model name contains special characters"),
        ({"export_path": "none"}, ModelArchiverError, "Given export-path none is not a directory"),
        ({"archive_format": "rar"}, ModelArchiverError, "rar: expected one of default"),
        ({"handler": "no"}, FileNotFoundError, r"File does not exist: no\.py"),
        ({"handler": "h.py:handle"}, FileNotFoundError, r"File does not exist: h\.py:handle"),
        ({"extra_files": "no"}, FileNotFoundError, "File does not exist: no"),
        ({"runtime": "perl"}, ValueError, "'perl' is not a valid runtime"),
    ],
)
def test_what_cannot_be_packed(changes: Any, error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        generate_model_archive(config(**changes))
    assert not list(Path().glob("*.mar"))


def test_what_exists_is_overwritten_by_force_only() -> None:
    generate_model_archive(config())
    with pytest.raises(ModelArchiverError, match=r"m\.mar already exists"):
        generate_model_archive(config())
    generate_model_archive(config(force=True))


def test_a_config_from_flags() -> None:
    made = config(force=True, runtime="python3")
    assert ModelArchiverConfig.from_args(Namespace(**vars(made))) == made
    with pytest.raises(AttributeError):
        ModelArchiverConfig.from_args(Namespace(model_name="m", handler="h", version="1"))


def test_the_runtimes_of_torchserve_can_be_packed() -> None:
    assert [one.value for one in RuntimeType] == list(RUNTIMES)
    generate_model_archive(config(runtime=RuntimeType.PYTHON3.value))
    with zipfile.ZipFile("m.mar") as archive:
        assert json.loads(archive.read("MAR-INF/MANIFEST.json"))["runtime"] == "python3"


def test_the_names_and_defaults_are_torchserves() -> None:
    defaults = {
        name: parameter.default
        for name, parameter in inspect.signature(ModelArchiverConfig).parameters.items()
    }
    empty = inspect.Parameter.empty
    assert defaults.pop("export_path")
    assert defaults == {
        **{"model_name": empty, "handler": empty, "version": empty, "serialized_file": None},
        **{"model_file": None, "extra_files": None, "runtime": "python"},
        **{"archive_format": "default", "force": False, "requirements_file": None},
        "config_file": None,
    }
    assert SameError is ModelArchiverError
