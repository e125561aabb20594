"""TorchServe's Python interface to the archiver of workflows."""

import sys
from pathlib import Path

import pytest

from workflow_archiver.workflow_archiver_error import WorkflowArchiverError
from workflow_archiver.workflow_packaging import generate_workflow_archive

FLAGS = ["--workflow-name", "w", "--spec-file", "spec.yaml", "--handler", "h.py"]


@pytest.fixture(autouse=True)
def _parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["torch-workflow-archiver", *FLAGS])
    for name in ("h.py", "spec.yaml"):
        Path(name).write_text(name)


def test_the_command_line_is_packed() -> None:
    generate_workflow_archive()
    assert Path("w.war").exists()
    with pytest.raises(WorkflowArchiverError, match=r"w\.war already exists"):
        generate_workflow_archive()


def test_a_missing_file() -> None:
    Path("h.py").unlink()
    with pytest.raises(FileNotFoundError, match=r"File does not exist: h\.py"):
        generate_workflow_archive()
