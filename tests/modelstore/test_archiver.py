"""What the archiver writes, says and exits with."""

import asyncio
import json
import os
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from torchkeep.modelstore.archiver import ArchiveParts, main, pack
from torchkeep.modelstore.errors import ArchiverError
from torchkeep.modelstore.manifest import read_manifest
from torchkeep.modelstore.store import ModelStore

REQUIRED = ["--model-name", "m", "-v", "1.0", "--handler"]


@pytest.fixture(autouse=True)
def parts_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The cwd, holding what archives are made of."""
    for name, content in {
        "h.py": "def handle(data, context): return data",
        "sub/h2.py": "handler",
        "model.py": "class Model: pass",
        "w.pt": "weights",
        "r.txt": "numpy",
        "c.yaml": "batchSize: 2",
        "extra/a": "1",
        "extra/.hidden": "2",
        "extra/deep/b": "3",
        "extra/.git/c": "4",
        "extra/__pycache__/d": "5",
        "extra/__MACOSX/e": "6",
        "other/h.py": "another handler",
    }.items():
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(content)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1711730228")
    return tmp_path


def run(*argv: str) -> int:
    with pytest.raises(SystemExit) as caught:
        main(argv)
    assert isinstance(caught.value.code, int)
    return caught.value.code


def names(path: str) -> list[str]:
    if path.endswith(".mar"):
        with zipfile.ZipFile(path) as archive_zip:
            return archive_zip.namelist()
    with tarfile.open(path) as archive_tar:
        return archive_tar.getnames()


FULL = [
    *(*REQUIRED, "h.py", "--serialized-file", "w.pt", "--model-file", "model.py"),
    *("--extra-files", "extra,sub/*.py", "-r", "r.txt", "-c", "c.yaml"),
]
FULL_NAMES = [
    *(".hidden", "a", "c.yaml", "deep/b", "h.py", "h2.py", "model.py", "r.txt", "w.pt"),
    "MAR-INF/MANIFEST.json",
]


def test_a_full_archive() -> None:
    assert run(*FULL) == 0
    assert names("m.mar") == FULL_NAMES
    with zipfile.ZipFile("m.mar") as archive_zip:
        assert archive_zip.read("MAR-INF/MANIFEST.json").decode() == json.dumps(
            {
                "createdOn": "29/03/2024 16:37:08",
                "runtime": "python",
                "model": {
                    "modelName": "m",
                    "serializedFile": "w.pt",
                    "handler": "h.py",
                    "modelFile": "model.py",
                    "modelVersion": "1.0",
                    "requirementsFile": "r.txt",
                    "configFile": "c.yaml",
                },
                "archiverVersion": "0.12.0",
            },
            indent=2,
        )
        assert {entry.compress_type for entry in archive_zip.infolist()} == {zipfile.ZIP_DEFLATED}


def test_the_formats_hold_the_same() -> None:
    assert run(*FULL, "--archive-format", "zip-store") == 0
    assert names("m.mar") == FULL_NAMES
    with zipfile.ZipFile("m.mar") as archive_zip:
        assert {entry.compress_type for entry in archive_zip.infolist()} == {zipfile.ZIP_STORED}
    assert run(*FULL, "--archive-format", "tgz") == 0
    assert names("m.tar.gz") == [f"m/{name}" for name in FULL_NAMES]
    assert run(*FULL, "--archive-format", "no-archive") == 0
    files = [path.relative_to("m").as_posix() for path in Path("m").rglob("*") if path.is_file()]
    assert sorted(files) == sorted(FULL_NAMES)
    assert not list(Path().glob(".*.part"))


@pytest.mark.parametrize("archive_format", ["default", "zip-store", "tgz", "no-archive"])
def test_what_we_write_opens(tmp_path: Path, archive_format: str) -> None:
    assert run(*FULL, "--archive-format", archive_format) == 0
    suffix = {"tgz": ".tar.gz", "no-archive": ""}.get(archive_format, ".mar")
    store = ModelStore(tmp_path, [], tmp_path / "tmp")
    model_dir = asyncio.run(store.open(f"m{suffix}"))
    assert model_dir.manifest.model_name == "m"
    assert model_dir.config.batch_size == 2
    assert (model_dir.path / "deep/b").read_text() == "3"
    model_dir.close()


@pytest.mark.parametrize("archive_format", ["default", "tgz"])
def test_equal_parts_give_equal_bytes(
    tmp_path: Path, archive_format: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SOURCE_DATE_EPOCH")
    parts = ArchiveParts("m", "1.0", "h", extra_files=["extra"])
    first = pack(parts, tmp_path, archive_format).read_bytes()
    os.utime("h.py", (1, 1))
    Path("h.py").chmod(0o777)
    assert pack(parts, tmp_path, archive_format, force=True).read_bytes() == first


@pytest.mark.parametrize(
    ("handler", "runtime", "files", "written"),
    [
        ("h", "python", ["h.py"], "h"),
        ("h.py", "python3", ["h.py"], "h.py"),
        ("sub/h2", "python", ["h2.py"], "h2"),
        ("sub/h2:handle", "python", ["h2.py"], "h2:handle"),
        ("image_classifier", "python", [], "image_classifier"),
        ("base_handler", "python", [], "base_handler"),
    ],
)
def test_handlers(handler: str, runtime: str, files: list[str], written: str) -> None:
    assert run(*REQUIRED, handler, "--runtime", runtime) == 0
    assert names("m.mar") == [*files, "MAR-INF/MANIFEST.json"]
    assert run(*REQUIRED, handler, "--runtime", runtime, "--archive-format", "no-archive") == 0
    manifest = read_manifest(Path("m"))
    assert (manifest.handler, manifest.runtime) == (written, runtime)


@pytest.mark.parametrize(
    ("flags", "missing"),
    [
        (["no.py"], "no.py"),
        (["no"], "no.py"),
        (["densenet_handler"], "densenet_handler.py"),
        (["h.py:handle"], "h.py:handle"),
        (["h", "--runtime", "LSP"], "h.so"),
        (["h", "--serialized-file", "no.pt"], "no.pt"),
        (["h", "--model-file", "no.py"], "no.py"),
        (["h", "--extra-files", "extra,no"], "no"),
        (["h", "--extra-files", "extra, w.pt"], " w.pt"),
        (["h", "-r", "no.txt"], "no.txt"),
        (["h", "-c", "no.yaml"], "no.yaml"),
    ],
)
def test_a_missing_file(flags: list[str], missing: str, caplog: pytest.LogCaptureFixture) -> None:
    assert run(*REQUIRED, *flags) == 1
    assert caplog.messages[-1].startswith(f"File does not exist: {missing}")
    assert not Path("m.mar").exists()


def test_a_directory_is_no_file(caplog: pytest.LogCaptureFixture) -> None:
    assert run(*REQUIRED, "h", "--serialized-file", "extra") == 1
    assert caplog.messages == ["Is a directory: extra"]


def test_a_pattern_without_matches_is_only_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    assert run(*REQUIRED, "h", "--extra-files", "zz*,,w.pt") == 0
    assert caplog.messages == ["Given wildcard pattern did not match any file: zz*"]
    assert names("m.mar") == ["h.py", "w.pt", "MAR-INF/MANIFEST.json"]


def test_extra_files_win_and_say_so(caplog: pytest.LogCaptureFixture) -> None:
    assert run(*REQUIRED, "h", "--extra-files", "h.py,other") == 0
    assert caplog.messages == ["h.py in the archive is other/h.py, no longer h.py"]
    with zipfile.ZipFile("m.mar") as archive_zip:
        assert archive_zip.read("h.py") == b"another handler"


def test_a_manifest_among_the_extra_files_is_replaced() -> None:
    (Path("extra") / "MAR-INF").mkdir()
    Path("extra/MAR-INF/MANIFEST.json").write_text("{}")
    assert run(*REQUIRED, "image_classifier", "--extra-files", "extra") == 0
    assert names("m.mar") == [".hidden", "a", "deep/b", "MAR-INF/MANIFEST.json"]


def test_a_loop_of_links_ends() -> None:
    Path("extra/loop").symlink_to("..", target_is_directory=True)
    assert run(*REQUIRED, "h", "--extra-files", "extra") == 1


@pytest.mark.parametrize("archive_format", ["default", "tgz", "no-archive"])
def test_nothing_is_overwritten_without_force(
    archive_format: str, caplog: pytest.LogCaptureFixture
) -> None:
    flags = [*REQUIRED, "h", "--archive-format", archive_format]
    assert run(*flags) == 0
    path = next(str(path) for path in Path.cwd().glob("m*") if path.name != "model.py")
    assert run(*flags) == 1
    assert caplog.messages == [
        f"{path} already exists.\n"
        "Please specify --force/-f option to overwrite the model archive output file.\n"
        "See -h/--help for more details."
    ]
    assert run(*flags, "-f") == 0
    assert caplog.messages[1:] == [f"Overwriting {path} ..."]


@pytest.mark.parametrize("name", ["a b", "../m", "", ".m", "_m", "m\n", "ä"])
def test_model_names_are_plain(name: str, caplog: pytest.LogCaptureFixture) -> None:
    assert run("--model-name", name, "-v", "1", "--handler", "h") == 1
    assert caplog.messages == [
        "Model name contains special characters.\n"
        r"The allowed regular expression filter for model name is: ^[A-Za-z0-9][A-Za-z0-9_\-.]*$"
    ]


@pytest.mark.parametrize("path", ["none", "h.py"])
def test_the_export_path_must_be_a_directory(path: str, caplog: pytest.LogCaptureFixture) -> None:
    assert run(*REQUIRED, "h", "--export-path", path) == 1
    assert caplog.messages == [
        f"Given export-path {path} is not a directory. Point to a valid export-path directory."
    ]


@pytest.mark.parametrize(
    "flags",
    [
        ["--model-name", "m"],
        [*REQUIRED, "h", "--runtime", "perl"],
        [*REQUIRED, "h", "--archive-format", "rar"],
    ],
)
def test_wrong_flags_exit_with_2(flags: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(*flags) == 2
    assert "torch-model-archiver: error: " in capsys.readouterr().err


def test_the_messages_of_the_command(parts_dir: Path) -> None:
    command = [sys.executable, "-m", "torchkeep.modelstore.archiver", *REQUIRED, "h"]
    first = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert (first.returncode, first.stdout, first.stderr) == (0, "", "")
    second = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert second.returncode == 1
    assert second.stderr.startswith(f"ERROR - {parts_dir}/m.mar already exists.\n")


def test_a_failed_write_leaves_nothing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("shutil.copyfileobj", fail)
    (tmp_path / "out").mkdir()
    for archive_format in ("default", "no-archive"):
        with pytest.raises(OSError, match="No space"):
            pack(ArchiveParts("m", "1", "h"), tmp_path / "out", archive_format)
    assert os.listdir(tmp_path / "out") == []


def test_pack_raises_instead_of_exiting(tmp_path: Path) -> None:
    with pytest.raises(ArchiverError, match=r"File does not exist: no\.py"):
        pack(ArchiveParts("m", "1", "no"), tmp_path)


def test_without_a_date_of_yours_the_manifest_has_that_of_the_entries(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("SOURCE_DATE_EPOCH")
    assert run(*REQUIRED, "h") == 0
    with zipfile.ZipFile("m.mar") as archive:
        manifest = json.loads(archive.read("MAR-INF/MANIFEST.json"))
        assert manifest["createdOn"] == "01/01/1980 00:00:00"
        assert {entry.date_time[0] for entry in archive.infolist()} == {1980}


def test_an_empty_version_is_left_out_of_the_manifest() -> None:
    assert run("--model-name", "m", "--version", "", "--handler", "image_classifier") == 0
    with zipfile.ZipFile("m.mar") as archive:
        manifest = json.loads(archive.read("MAR-INF/MANIFEST.json"))
    assert manifest["model"] == {"modelName": "m", "handler": "image_classifier"}
