"""requirements.txt and useVenv of an archive, as in TorchServe.

The packages are wheels made here, and every requirements.txt forbids to look elsewhere.
"""

import json
import os
import subprocess
import sys
import zipfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from torchkeep.runtime.kernel import kernel_layers

HANDLER = """
import json, os, sys
import yaml

def handle(data, context):
    if data is None:
        return None
    try:
        import greeting
        found = [greeting.WORD, os.path.dirname(greeting.__file__)]
    except ImportError:
        found = None
    return [{"greeting": found, "prefix": sys.prefix, "model_dir": os.getcwd()} for _ in data]
"""
# Of libraries that a worker runs on, and which no worker could run on.
PINNED = {"msgpack": "msgpack", "cryptography": "cryptography", "yaml": "PyYAML"}
UNUSABLE = """
VERSION = "0.0.1"
def __getattr__(name):
    raise RuntimeError(f"{__name__} of the model: {name}")
"""
PINNING_HANDLER = """
import json, subprocess, sys
import cryptography, msgpack, yaml

LOOK = (
    "import glob, os; links = map(os.path.realpath, glob.glob('/proc/self/fd/*'));"
    "print([link for link in links if 'socket' in link])"
)

def handle(data, context):
    if data is None:
        return None
    command = [sys.executable, "-c", LOOK]
    started = subprocess.run(command, close_fds=False, capture_output=True, check=True)
    found = {
        "versions": [vars(m).get("VERSION") for m in (msgpack, cryptography, yaml)],
        "inherited": started.stdout.decode(),
        "body": bytes(data[0]["body"]).decode(),
    }
    return [json.dumps(found)]
"""
ALLOWED = {"install_py_dep_per_model": "true"}
LONG = pytest.mark.long
WHEEL = "greeting-1.0-py3-none-any.whl"


@pytest.fixture(scope="module")
def pip_home(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Where pip is, which the environment of the tests may lack."""
    if find_spec("pip") is not None:
        return ""
    venv = tmp_path_factory.mktemp("pip") / "venv"
    subprocess.run([sys.executable, "-m", "venv", str(venv)], check=True)
    (packages,) = venv.glob("lib/python*/site-packages")
    for other in packages.iterdir():
        assert other.name.startswith(("pip", "setuptools", "pkg_resources", "_distutils", "dist"))
    return str(packages)


def write_wheel(
    path: Path, source: str, name: str = "greeting", version: str = "1.0", module: str = "greeting"
) -> None:
    info = f"{name}-{version}.dist-info"
    metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
    with zipfile.ZipFile(path, "w") as wheel:
        wheel.writestr(f"{module}.py", source)
        wheel.writestr(f"{info}/METADATA", metadata)
        wheel.writestr(
            f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        wheel.writestr(f"{info}/RECORD", "")


@pytest.fixture
def store(tmp_path: Path) -> Path:
    wheels, store = tmp_path / "wheels", tmp_path / "store"
    wheels.mkdir()
    store.mkdir()
    write_wheel(wheels / WHEEL, "WORD = 'hello'\n")
    offline = f"--no-index\n--find-links {wheels}\n"
    write_model(store, "good", f"{offline}greeting\n")
    write_model(store, "bad", f"{offline}nobody-has-this\n")
    write_model(store, "missing", None)
    write_model(store, "venv_good", f"{offline}greeting\n", "useVenv: true\n")
    write_model(store, "venv_bad", f"{offline}nobody-has-this\n", "useVenv: true\n")
    return store


def write_model(
    store: Path,
    name: str,
    requirements: str | None,
    config: str = "",
    is_directory: bool = False,
    handler: str = HANDLER,
) -> None:
    """A model whose manifest names a requirements.txt; None: which is not there."""
    model = {"modelName": name, "handler": "h.py", "requirementsFile": "requirements.txt"}
    files = {"h.py": handler}
    if requirements is not None:
        files["requirements.txt"] = requirements
    if config:
        model["configFile"] = "model-config.yaml"
        files["model-config.yaml"] = config
    files["MAR-INF/MANIFEST.json"] = json.dumps({"model": model})
    if is_directory:
        for path, text in files.items():
            (store / name / path).parent.mkdir(parents=True, exist_ok=True)
            (store / name / path).write_text(text)
        return
    with zipfile.ZipFile(store / f"{name}.mar", "w") as archive:
        for path, text in files.items():
            archive.writestr(path, text)


@pytest.fixture
def serve(server_factory: Callable[..., Any], store: Path, pip_home: str) -> Callable[..., Any]:
    def serve(config: dict[str, str] | None = None, models: list[str] | None = None) -> Any:
        paths = [path for path in (pip_home, os.environ.get("PYTHONPATH")) if path]
        env = {"PYTHONPATH": os.pathsep.join(paths)} if paths else {}
        return server_factory(models, store, config, env=env)

    return serve


def register(server: Any, url: str) -> tuple[int, Any]:
    path = f"/models?url={url}&initial_workers=1&synchronous=true"
    status, _, body = server.request("POST", path, port="management", timeout_s=120)
    return status, json.loads(body)


def predict(server: Any, model: str) -> Any:
    status, _, body = server.request("GET", f"/predictions/{model}")
    assert status == 200
    return json.loads(body)


def unpacked(server: Any) -> list[Path]:
    return [path.parent for path in (server.temp / "models").glob("*/MAR-INF")]


def test_listed_packages_are_installed_beside_the_model(serve: Callable[..., Any]) -> None:
    server = serve(ALLOWED)
    assert register(server, "good.mar")[0] == 200
    answer = predict(server, "good")
    (directory,) = unpacked(server)
    assert answer["greeting"] == ["hello", str(directory)]
    assert answer["model_dir"] == str(directory)
    server.request("DELETE", "/models/good", port="management")
    assert unpacked(server) == []


def test_an_archive_may_hold_the_packages_it_lists(serve: Callable[..., Any], store: Path) -> None:
    write_model(store, "own", f"--no-index\n./{WHEEL}\n")
    with zipfile.ZipFile(store / "own.mar", "a") as archive:
        archive.write(store.parent / "wheels" / WHEEL, WHEEL)
        archive.writestr("pip.py", "raise SystemExit('this is no pip')")
    server = serve(ALLOWED)
    assert register(server, "own.mar")[0] == 200
    assert predict(server, "own")["greeting"][0] == "hello"


def test_without_leave_nothing_is_installed(serve: Callable[..., Any]) -> None:
    server = serve()
    for model in ("good", "bad", "missing"):
        assert register(server, f"{model}.mar")[0] == 200
        assert predict(server, model)["greeting"] is None


@pytest.mark.parametrize(
    ("model", "reason"),
    [
        ("bad", "No matching distribution found for nobody-has-this"),
        ("missing", "Could not open requirements file"),
        ("venv_bad", "No matching distribution found for nobody-has-this"),
    ],
)
def test_a_failed_installation_fails_the_registration_and_leaves_nothing(
    serve: Callable[..., Any], store: Path, model: str, reason: str
) -> None:
    server = serve(ALLOWED)
    status, answer = register(server, f"{model}.mar")
    assert status == 400
    assert answer == {
        "code": 400,
        "type": "ModelException",
        "message": f"Custom pip package installation failed for model {model}",
    }
    server.wait_for_lines(reason, f"{model}: pip could not install requirements.txt")
    assert unpacked(server) == []
    # TorchServe keeps the model, and refuses the corrected archive as a conflict
    assert server.request("GET", f"/models/{model}", port="management")[0] == 404
    write_model(store, model, f"--no-index\n--find-links {store.parent / 'wheels'}\ngreeting\n")
    assert register(server, f"{model}.mar")[0] == 200


def test_a_virtual_environment_has_the_servers_packages_and_its_own(
    serve: Callable[..., Any],
) -> None:
    server = serve(ALLOWED)
    assert register(server, "venv_good.mar")[0] == 200
    answer = predict(server, "venv_good")
    (directory,) = unpacked(server)
    assert answer["prefix"] == str(directory / "venv")
    word, place = answer["greeting"]
    assert word == "hello"
    assert Path(place).parent.parent.parent == directory / "venv"
    described = server.request("GET", "/models/venv_good", port="management")[2]
    assert json.loads(described)[0]["useVenv"] is True


@pytest.mark.skipif(
    bool(kernel_layers().missing_for_strict), reason=kernel_layers().missing_for_strict
)
@pytest.mark.parametrize("model", ["good", "venv_good", pytest.param("folder", marks=LONG)])
def test_what_was_installed_is_there_in_the_strict_sandbox(
    serve: Callable[..., Any], store: Path, model: str
) -> None:
    listed = f"--no-index\n--find-links {store.parent / 'wheels'}\ngreeting\n"
    write_model(store, "folder", listed, is_directory=True)
    server = serve({**ALLOWED, "sandbox": "strict"})
    assert register(server, model if model == "folder" else f"{model}.mar")[0] == 200
    assert predict(server, model)["greeting"][0] == "hello"


def test_a_virtual_environment_needs_no_leave(serve: Callable[..., Any]) -> None:
    server = serve()
    assert register(server, "venv_bad.mar")[0] == 200
    answer = predict(server, "venv_bad")
    assert answer["prefix"].endswith("/venv")
    assert answer["greeting"] is None


@pytest.mark.parametrize("config", ["", "useVenv: true\n"])
def test_a_directory_that_is_served_in_place_stays_as_it_is(
    serve: Callable[..., Any], store: Path, config: str
) -> None:
    offline = f"--no-index\n--find-links {store.parent / 'wheels'}\n"
    write_model(store, "folder", f"{offline}greeting\n", config, is_directory=True)
    before = sorted(store.rglob("*"))
    server = serve(ALLOWED)
    assert register(server, "folder")[0] == 200
    assert predict(server, "folder")["greeting"][0] == "hello"
    assert [path for path in sorted(store.rglob("*")) if "__pycache__" not in str(path)] == before


def test_a_model_of_the_configuration_without_its_packages_is_not_served(
    serve: Callable[..., Any],
) -> None:
    server = serve(ALLOWED, ["bad.mar", "good.mar"])
    server.wait_until_ready("good")
    assert "Failed to load model: bad.mar: Custom pip package installation" in server.log_text()
    assert predict(server, "good")["greeting"][0] == "hello"


@pytest.mark.parametrize("models", [("beside", "venv"), pytest.param(("in_place",), marks=LONG)])
def test_versions_of_what_a_worker_runs_on_do_not_meet(
    models: tuple[str, ...], serve: Callable[..., Any], store: Path
) -> None:
    wheels = store.parent / "wheels"
    for module, name in PINNED.items():
        wheel = wheels / f"{name}-0.0.1-py3-none-any.whl"
        write_wheel(wheel, UNUSABLE, name, "0.0.1", module)
    pins = "".join(f"{name}==0.0.1\n" for name in PINNED.values())
    listed = f"--no-index\n--find-links {wheels}\n{pins}"
    write_model(store, "beside", listed, handler=PINNING_HANDLER)
    write_model(store, "in_place", listed, is_directory=True, handler=PINNING_HANDLER)
    write_model(store, "venv", listed, "useVenv: true\n", handler=PINNING_HANDLER)
    with zipfile.ZipFile(store / "neighbour.mar", "w") as archive:
        manifest = {"model": {"modelName": "neighbour", "handler": "h.py"}}
        archive.writestr("h.py", PINNING_HANDLER)
        archive.writestr("MAR-INF/MANIFEST.json", json.dumps(manifest))
    server = serve(ALLOWED)
    urls = [model if model == "in_place" else f"{model}.mar" for model in ("neighbour", *models)]
    with ThreadPoolExecutor() as pool:
        for status, answer in pool.map(lambda url: register(server, url), urls):
            assert status == 200, (answer, server.log_text())
    for _ in range(3):
        for model in ("neighbour", *models):
            _, _, body = server.request("POST", f"/predictions/{model}", model.encode())
            versions = [None] * 3 if model == "neighbour" else ["0.0.1"] * 3
            # No program that the handler starts has a socket of the worker.
            expected = {"versions": versions, "inherited": "[]\n", "body": model}
            assert json.loads(body) == expected, server.log_text()
