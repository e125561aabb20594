"""Wheels whose handlers are run: downloaded by pip, unpacked, or missed with a reason."""

import sys
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import pytest

from conformance import packages, run
from conformance.packages import PackageMissing, unpacked_wheel, why_no_packages
from conformance.scenarios import SCENARIOS

needs_pip = pytest.mark.skipif(find_spec("pip") is None, reason="pip is not installed")


@pytest.fixture(autouse=True)
def _own_settings(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    for name in ("PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL", "PIP_FIND_LINKS", "PIP_NO_INDEX"):
        monkeypatch.delenv(name, raising=False)
    why_no_packages.cache_clear()
    yield
    why_no_packages.cache_clear()


@needs_pip
def test_a_wheel_is_unpacked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "served-1.0-py3-none-any.whl", "w") as wheel:
        info = "served-1.0.dist-info"
        wheel.writestr("served/handlers/own.py", "def handle(data, context): ...\n")
        wheel.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: served\nVersion: 1.0\n")
        wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
        wheel.writestr(f"{info}/RECORD", "")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    unpacked = unpacked_wheel("served==1.0", tmp_path / "unpacked")
    assert (unpacked / "served" / "handlers" / "own.py").is_file()


@needs_pip
def test_without_a_network_scenarios_are_left_out_with_the_reason(
    monkeypatch: pytest.MonkeyPatch,
    free_port: Callable[[], int],
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("PIP_INDEX_URL", f"http://127.0.0.1:{free_port()}/simple")
    assert packages.SMALL_WHEEL in why_no_packages()
    scenarios = [replace(one, needs_torch=False) for one in SCENARIOS if one.needs_packages]
    assert len(scenarios) == 2
    assert run.runnable(scenarios, Path(sys.prefix)) == []
    assert "handlers of packages" in capsys.readouterr().out
    assert "is there a network?" in why_no_packages()


def test_without_pip_the_reason_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(packages, "find_spec", lambda name: None)
    with pytest.raises(PackageMissing, match=r"served==1\.0: pip is not installed beside"):
        unpacked_wheel("served==1.0", tmp_path)
