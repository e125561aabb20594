"""Starting, asking and stopping our own `torchserve` from Python."""

import builtins
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import requests

from ts import launcher

ECHO = "def handle(data, context): return data and [row['body'] for row in data]"
MANIFEST = '{"model": {"modelName": "echo", "handler": "echo.py", "modelVersion": "1.0"}}'


@pytest.fixture(autouse=True)
def _own_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the server keeps its pid, its logs and its models."""
    monkeypatch.chdir(tmp_path)
    for name in ("TEMP", "TMPDIR"):
        monkeypatch.setenv(name, str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)


def test_a_server_is_started_asked_and_stopped(
    tmp_path: Path,
    free_port: Callable[[], int],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    with zipfile.ZipFile("echo.mar", "w") as archive:
        archive.writestr("echo.py", ECHO)
        archive.writestr("MAR-INF/MANIFEST.json", MANIFEST)
    inference, management, metrics = (f"http://127.0.0.1:{free_port()}" for _ in range(3))
    Path("c.properties").write_text(
        f"inference_address={inference}\nmanagement_address={management}\n"
        f"metrics_address={metrics}\n"
    )
    monkeypatch.setattr(launcher, "_MANAGEMENT", management)
    lines = launcher.start(
        str(tmp_path),
        snapshot_file="c.properties",
        no_config_snapshots=True,
        disable_token=True,
        enable_model_api=True,
    )
    try:
        assert "Model server started." in capsys.readouterr().out
        assert launcher.register_model("echo", "echo.mar").status_code == 200
        answer = requests.post(f"{inference}/predictions/echo", data=b"hello", timeout=60)
        assert answer.content == b"hello"
        refused = launcher.register_model_with_params({"url": "none.mar"})
        assert refused.json()["type"] == "ModelNotFoundException"
    finally:
        launcher.stop()
    said = list(iter(lambda: lines.get(timeout=60), None))
    assert "Torchserve stopped.\n" in said


def test_a_server_that_cannot_start_is_an_error_with_its_words() -> None:
    with pytest.raises(RuntimeError, match="--model-store directory not found: none"):
        launcher.start("none")


def test_without_a_model_store_nothing_is_started() -> None:
    with pytest.raises(TypeError, match="needs model_store"):
        launcher.start()


def test_without_requests_registering_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    real_import = builtins.__import__

    def no_requests(name: str, *rest: Any) -> Any:
        if name == "requests":
            raise ImportError(name)
        return real_import(name, *rest)

    monkeypatch.delitem(sys.modules, "requests", raising=False)
    monkeypatch.setattr(builtins, "__import__", no_requests)
    with pytest.raises(ImportError, match="pip install"):
        launcher.register_model("m", "m.mar")


def test_no_torchserve_anywhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(FileNotFoundError, match="no torchserve"):
        launcher.stop()
