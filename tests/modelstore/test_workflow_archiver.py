"""What the archiver of workflows writes, says and exits with."""

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from torchkeep.modelstore.workflow_archiver import WorkflowParts, main, pack

REQUIRED = ["--workflow-name", "w", "--spec-file", "sub/spec.yaml"]
FULL = [*REQUIRED, "--handler", "h.py"]


@pytest.fixture(autouse=True)
def parts_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The cwd, holding what archives are made of."""
    for name in ("h.py", "sub/spec.yaml", "e.txt", "a.txt"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(name)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(*argv: str) -> int:
    with pytest.raises(SystemExit) as caught:
        main(argv)
    assert isinstance(caught.value.code, int)
    return caught.value.code


def test_a_full_archive() -> None:
    assert run(*FULL, "--extra-files", "e.txt,a.txt") == 0
    with zipfile.ZipFile("w.war") as archive:
        assert archive.namelist() == [
            *("a.txt", "e.txt", "h.py", "spec.yaml"),
            "WAR-INF/MANIFEST.json",
        ]
        assert archive.read("spec.yaml") == b"sub/spec.yaml"
        assert archive.read("WAR-INF/MANIFEST.json").decode() == json.dumps(
            {
                "createdOn": "01/01/1980 00:00:00",
                "workflow": {"workflowName": "w", "specFile": "spec.yaml", "handler": "h.py"},
                "archiverVersion": "0.2.15",
            },
            indent=2,
        )


def test_equal_parts_give_equal_bytes(tmp_path: Path) -> None:
    parts = WorkflowParts("w", "sub/spec.yaml", "h.py", ["e.txt"])
    first = pack(parts, tmp_path).read_bytes()
    os.utime("h.py", (1, 1))
    assert pack(parts, tmp_path, force=True).read_bytes() == first


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ([*REQUIRED, "--handler", "h"], "File does not exist: h"),
        ([*FULL, "--extra-files", "no"], "File does not exist: no"),
        ([*FULL, "--extra-files", "e*"], "File does not exist: e*"),
        ([*FULL, "--extra-files", "sub"], "Is a directory: sub"),
        ([*FULL, "--spec-file", "no.yaml"], "File does not exist: no.yaml"),
        (REQUIRED, "--handler is missing: expected the Python file"),
        (
            [*FULL, "--export-path", "none"],
            "Given export-path none is not a directory. Point to a valid export-path directory.",
        ),
        (
            [*FULL, "--workflow-name", "a b"],
            "Workflow name contains special characters.\n"
            "The allowed regular expression filter for workflow name is: ^[A-Za-z0-9]",
        ),
    ],
)
def test_what_cannot_be_packed(
    flags: list[str], message: str, caplog: pytest.LogCaptureFixture
) -> None:
    assert run(*flags) == 1
    assert len(caplog.messages) == 1
    assert caplog.messages[0].startswith(message)
    assert not Path("w.war").exists()


def test_wrong_flags_exit_with_2(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--workflow-name", "w") == 2
    assert "torch-workflow-archiver: error: " in capsys.readouterr().err


def test_the_messages_of_the_command(parts_dir: Path) -> None:
    command = [sys.executable, "-P", "-m", "torchkeep.modelstore.workflow_archiver", *FULL]
    for flags, code, message in (
        ([], 0, ""),
        (
            [],
            1,
            f"ERROR - {parts_dir}/w.war already exists.\n"
            "Please specify --force/-f option to overwrite the workflow archive output file.\n"
            "See -h/--help for more details.\n",
        ),
        (["-f"], 0, f"WARNING - Overwriting {parts_dir}/w.war ...\n"),
    ):
        ended = subprocess.run(
            [*command, *flags], capture_output=True, text=True, check=False, timeout=60
        )
        assert (ended.returncode, ended.stdout, ended.stderr) == (code, "", message)
