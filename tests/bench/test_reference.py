"""Where TorchServe comes from, and what is said when it cannot."""

from pathlib import Path

import pytest

from bench.reference import ReferenceMissing, java_version, missing_programs, reference


def test_given_environment_is_used(tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "torchserve").touch()
    assert reference(tmp_path, tmp_path / "build") == tmp_path


def test_given_directory_without_torchserve_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ReferenceMissing, match="holds no bin/torchserve"):
        reference(tmp_path, tmp_path / "build")


def test_missing_programs_name_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert [line.rpartition(" ")[2] for line in missing_programs()] == [
        "wrk",
        "openjdk-17-jre-headless",
    ]


@pytest.mark.parametrize(
    ("line", "major"), [('openjdk version "17.0.15"', 17), ('java version "1.8.0"', 1), ("?", 0)]
)
def test_java_version_is_its_first_number(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, line: str, major: int
) -> None:
    java = tmp_path / "java"
    java.write_text(f"#!/bin/sh\necho '{line}' >&2\n")
    java.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert java_version() == major
