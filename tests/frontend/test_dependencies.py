"""What is run for a model before it has workers; the whole way is in tests/system."""

import asyncio
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest

from torchkeep.frontend.dependencies import Dependencies, Installer
from torchkeep.frontend.errors import InstallFailed, NoVirtualEnvironment
from torchkeep.frontend.zygote_client import ZygoteClient
from torchkeep.modelstore.manifest import Manifest
from torchkeep.modelstore.model_config import ModelConfig
from torchkeep.modelstore.opening import ModelDir
from torchkeep.modelstore.unpack_area import UnpackArea

ENVIRONMENT = {"PATH": "/usr/bin:/bin"}


def model_dir(root: Path, requirements: str | None, *, use_venv: bool = False) -> ModelDir:
    unpacked = UnpackArea(root).create()
    return ModelDir(
        "m.mar",
        unpacked.path,
        Manifest(requirements_file=requirements),
        ModelConfig(use_venv=use_venv),
        unpacked,
        digest=bytes(32),
    )


def script(path: Path, text: str) -> str:
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o700)
    return str(path)


@asynccontextmanager
async def installer(python: str, is_allowed: bool = True, **options: Any) -> AsyncIterator[Any]:
    async with ZygoteClient() as zygote:
        yield Installer(zygote, ENVIRONMENT, is_allowed, python=python, **options)


def prepare(
    directory: ModelDir, python: str, runtime: str = "python", **options: Any
) -> Dependencies:
    async def prepared() -> Dependencies:
        async with installer(python, **options) as one:
            found: Dependencies = await one.prepare("m", runtime, directory)
            return found

    try:
        return asyncio.run(prepared())
    finally:
        directory.close()


def test_a_model_that_needs_nothing_starts_nothing(tmp_path: Path) -> None:
    assert prepare(model_dir(tmp_path, None), "/nowhere/python") == Dependencies()
    listing = model_dir(tmp_path, "requirements.txt")
    assert prepare(listing, "/nowhere/python", is_allowed=False) == Dependencies()


def test_the_command_is_torchserves(tmp_path: Path) -> None:
    python = script(tmp_path / "python", f'echo "$@" > {tmp_path}/asked; pwd >> {tmp_path}/asked')
    directory = model_dir(tmp_path, "sub/requirements.txt")
    assert prepare(directory, python) == Dependencies(python)
    asked, cwd = (tmp_path / "asked").read_text().splitlines()
    assert asked == (
        "-m pip install --no-input --disable-pip-version-check "
        f"-U -t {directory.path} -r {directory.path}/sub/requirements.txt"
    )
    assert cwd == str(directory.path)


def test_the_runtime_decides_which_python_installs(tmp_path: Path) -> None:
    python3 = script(tmp_path / "python3", "exit 0")
    interpreters = {"python3": python3}
    directory = model_dir(tmp_path, "r.txt")
    assert prepare(directory, "false", "python3", interpreters=interpreters).interpreter == python3


def test_pips_words_are_in_the_log(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    python = script(tmp_path / "python", "echo 'ERROR: no such thing' >&2; exit 1")
    with pytest.raises(
        InstallFailed, match=r"^Custom pip package installation failed for model m$"
    ):
        prepare(model_dir(tmp_path, "r.txt"), python)
    assert "P-m-stderr ERROR: no such thing" in caplog.text
    assert f"by hand: {python} -m pip install" in caplog.text


def test_no_virtual_environment(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    python = script(tmp_path / "python", "echo 'no ensurepip' >&2; exit 1")
    with pytest.raises(
        NoVirtualEnvironment, match=r"^Virtual environment creation failed for model m$"
    ):
        prepare(model_dir(tmp_path, None, use_venv=True), python)
    assert "V-m-stderr no ensurepip" in caplog.text


def test_only_python_has_virtual_environments(tmp_path: Path) -> None:
    directory = model_dir(tmp_path, None, use_venv=True)
    assert prepare(directory, "/nowhere/python", "LSP") == Dependencies()


@pytest.mark.parametrize("has_pip", [True, False])
def test_a_virtual_environment_has_the_servers_packages(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, has_pip: bool
) -> None:
    monkeypatch.setattr(
        "torchkeep.frontend.dependencies.find_spec", lambda _: object() if has_pip else None
    )
    directory = model_dir(tmp_path, None, use_venv=True)

    async def prefixes() -> list[str]:
        async with installer(sys.executable) as one:
            found = await one.prepare("m", "python", directory)
            program = "import sys, torchkeep.backend.worker, msgpack; print(sys.prefix)"
            asked = await asyncio.create_subprocess_exec(
                found.interpreter, "-P", "-c", program, stdout=asyncio.subprocess.PIPE
            )
            output, _ = await asked.communicate()
            has_own = bool(list(directory.path.glob("venv/lib/*/site-packages/pip")))
            return [output.decode().strip(), str(has_own)]

    try:
        assert asyncio.run(prefixes()) == [str(directory.path / "venv"), str(not has_pip)]
    finally:
        directory.close()


def test_who_gives_up_ends_pip(tmp_path: Path, poll: Callable[..., Any]) -> None:
    python = script(tmp_path / "python", f"echo $$ > {tmp_path}/pid; exec sleep 600")
    directory = model_dir(tmp_path, "r.txt")

    def written() -> str:
        file = tmp_path / "pid"
        return file.read_text().strip() if file.exists() else ""

    async def give_up() -> None:
        async with installer(python) as one:
            preparing = asyncio.create_task(one.prepare("m", "python", directory))
            pid = await asyncio.to_thread(poll, written, "pip runs")
            preparing.cancel()
            with pytest.raises(asyncio.CancelledError):
                await preparing
            assert not psutil.pid_exists(int(pid))

    try:
        asyncio.run(give_up())
    finally:
        directory.close()
