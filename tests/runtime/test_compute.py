"""What a server will compute with, from its configuration and environment."""

from importlib.metadata import PackageNotFoundError
from typing import Any

import pytest

from torchkeep.runtime import compute
from torchkeep.runtime.compute import Compute, plan_compute
from torchkeep.runtime.config import Config
from torchkeep.runtime.errors import ConfigError


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    versions = {"torch": "2.8.0", "intel-extension-for-pytorch": "2.8.0"}

    def version(name: str) -> str:
        if name not in versions:
            raise PackageNotFoundError(name)
        return versions[name]

    monkeypatch.setattr(compute, "version", version)
    return versions


def planned(environ: dict[str, str] | None = None, **keys: Any) -> Compute:
    return plan_compute(Config(**keys), environ or {})


@pytest.mark.usefixtures("installed")
def test_ipex_is_used_where_it_is_installed_unless_switched_off() -> None:
    assert planned().uses_ipex
    assert planned().engine == "IPEX 2.8.0 on torch 2.8.0"
    assert planned(ipex_enable=True).uses_ipex
    off = planned(ipex_enable=False)
    assert not off.uses_ipex
    assert off.engine == "torch 2.8.0"
    assert off.warnings == ()


def test_ipex_asked_for_and_not_there_is_a_warning(installed: dict[str, str]) -> None:
    del installed["intel-extension-for-pytorch"]
    assert planned().warnings == ()
    (warning,) = planned(ipex_enable=True).warnings
    assert "ipex_enable=true, but IPEX is not installed" in warning


def test_ipex_of_another_torch_is_left_out(installed: dict[str, str]) -> None:
    installed["torch"] = "2.13.0+cpu"
    planned_now = planned()
    assert not planned_now.uses_ipex
    assert planned_now.engine == "torch 2.13.0+cpu"
    assert "does not fit torch 2.13.0+cpu" in planned_now.warnings[0]


def test_no_torch_is_said(installed: dict[str, str]) -> None:
    installed.clear()
    assert planned().engine.startswith("no torch installed")


def test_threads_of_the_environment_win_over_the_launchers() -> None:
    arguments = {"cpu_launcher_enable": True, "cpu_launcher_args": "--ncores_per_instance 3"}
    assert planned().fixed_threads is None
    assert planned(**arguments).fixed_threads == 3
    assert planned({"OMP_NUM_THREADS": "5"}, **arguments).fixed_threads == 5


def test_launcher_arguments_without_effect_are_named() -> None:
    warnings = planned(cpu_launcher_args="--ncores_per_instance 3").warnings
    assert warnings == ("cpu_launcher_args has no effect without cpu_launcher_enable",)
    warnings = planned(cpu_launcher_enable=True, cpu_launcher_args="--latency_mode").warnings
    assert warnings == ("cpu_launcher_args: --latency-mode without effect here",)


@pytest.mark.parametrize("arguments", ["--ncores_per_instance x", "--core_list 4000"])
def test_launcher_arguments_that_cannot_be_followed_stop_the_start(arguments: str) -> None:
    with pytest.raises(ConfigError, match="cpu_launcher_args: "):
        planned(cpu_launcher_enable=True, cpu_launcher_args=arguments)
