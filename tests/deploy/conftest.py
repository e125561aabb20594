"""What the folder deploy/ writes out, once for all its tests, and Rego to judge by."""

import contextlib
import json
import subprocess
import sys
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

# Imported behind regopy, by another test, torch ends the process: free(): invalid pointer.
with contextlib.suppress(ModuleNotFoundError):
    import torch  # noqa: F401
import regopy

DEPLOY = Path(__file__).resolve().parents[2] / "deploy"
IMAGE = f"registry.example/torchkeep@sha256:{'0123456789abcdef' * 4}"
VALUES = (
    *("--image", IMAGE, "--image-size", "1200Mi", "--models-size", "300Mi", "--workers", "2"),
    *("--kbs", "https://kbs.example:8080", "--key", "kbs:///default/models/digits"),
    *("--key", "kbs:///default/models/second"),
)


class Rego:
    """A policy, and the data beside it."""

    def __init__(self, name: str, policy: str, data: Any = None) -> None:
        self._interpreter = regopy.Interpreter()
        self._interpreter.add_module(name, policy)
        if data is not None:
            self._interpreter.add_data(data)
        self._compiled: dict[str, Any] = {}

    def value(self, rule: str, given: Any) -> Any:
        """What a rule (`package/rule`) says of an input; None where it says nothing."""
        if rule not in self._compiled:
            try:
                self._compiled[rule] = self._interpreter.build(None, [rule])
            except regopy.RegoError:
                return None
        self._interpreter.set_input(given)
        output = self._interpreter.query_bundle_entrypoint(self._compiled[rule], rule)
        assert output.ok(), str(output)
        return None if str(output) == "undefined" else json.loads(str(output))["expressions"][0]


@dataclass(frozen=True)
class Rendered:
    """What `render.py fill` wrote."""

    folder: Path
    said: str

    def documents(self, name: str) -> list[dict[str, Any]]:
        return list(yaml.safe_load_all((self.folder / name).read_text()))

    @property
    def pod(self) -> dict[str, Any]:
        (found,) = self.documents("pod.yaml")
        return found

    @property
    def initdata(self) -> dict[str, str]:
        data: dict[str, str] = tomllib.loads((self.folder / "initdata.toml").read_text())["data"]
        return data


@pytest.fixture(scope="session")
def values() -> tuple[str, ...]:
    """Arguments of `fill`; later ones count before them."""
    return VALUES


@pytest.fixture(scope="session")
def rendered(tmp_path_factory: pytest.TempPathFactory) -> Rendered:
    folder = tmp_path_factory.mktemp("rendered")
    command = [sys.executable, DEPLOY / "render.py", "fill", folder, *VALUES]
    run = subprocess.run(command, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    return Rendered(folder, run.stdout)


@pytest.fixture(scope="session")
def rego() -> type[Rego]:
    return Rego


@pytest.fixture(scope="session")
def agent_policy(rendered: Rendered) -> Rego:
    return Rego("agent_policy", rendered.initdata["policy.rego"])
