"""`make serve`, piece by piece here and as a whole under `make test-long`."""

import importlib.util
import io
import json
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.request
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import IO

import pytest
from neighbouring_ports import neighbouring_ports
from uncovered import uncovered_environment

DEMO = Path(__file__).resolve().parent.parent / "demo"
README = DEMO.parent / "README.md"
START_LIMIT_S = 100

# Of these lines of the transcript, the rest depends on the machine.
BEGINNINGS = (
    "  epoch #",
    "Packed ",
    "Starting the server: torchserve --start --foreground --model-store model_store"
    " --models digits=digits.mar --ncs --disable-token-auth --enable-model-api",
    "Configuration: ",
    "Engine: ",
    "Plan: ",
    "Model digits #: # of # workers ready",
    "Model digits # runs by ",
    "Sent ",
    "  curl ",
    "  tail ",
)
# Warnings, how long it takes, and the log with its times; and what stands for more of these.
MAY_BE_MISSING = ("Warning: ", "  waiting ", "#-#-#", "... (")


@pytest.fixture
def demo_path(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The demo's modules, and `ts` for its handler, importable as in their own processes."""
    ours = {path.stem for path in DEMO.glob("*.py")}
    before = set(sys.modules)
    monkeypatch.syspath_prepend(DEMO.parent / "backend" / "ts-compat")
    monkeypatch.syspath_prepend(DEMO)
    yield
    for name in set(sys.modules) - before:
        if name.split(".")[0] in ours | {"ts"}:
            del sys.modules[name]


@pytest.fixture
def serve_digits(demo_path: None) -> ModuleType:
    return load("serve_digits")


def load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, DEMO / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_taken_port_is_named_before_any_work(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        run = subprocess.run(
            demo_command(port, tmp_path / "work"), capture_output=True, text=True, timeout=30
        )
    assert run.returncode == 1
    assert run.stdout.startswith(f"Port {port} is taken")
    assert not (tmp_path / "work").exists()


def test_other_ports_are_told_to_the_server(serve_digits: ModuleType, tmp_path: Path) -> None:
    properties = tmp_path / "ports.properties"
    serve_digits.Ports(9080).write_properties(properties)
    assert properties.read_text().splitlines() == [
        "inference_address=http://127.0.0.1:9080",
        "management_address=http://127.0.0.1:9081",
        "metrics_address=http://127.0.0.1:9082",
    ]


def test_archive_holds_model_weights_handler_and_config(
    serve_digits: ModuleType, tmp_path: Path
) -> None:
    weights = tmp_path / "digits.pt"
    weights.write_bytes(b"weights")
    load("digit_archive").pack(weights, tmp_path)
    with zipfile.ZipFile(tmp_path / "digits.mar") as archive:
        manifest = json.loads(archive.read("MAR-INF/MANIFEST.json"))
        assert manifest["model"] == {
            "modelName": "digits",
            "modelVersion": "1.0",
            "handler": "digit_handler.py",
            "modelFile": "digit_model.py",
            "serializedFile": "digits.pt",
            "configFile": "model-config.yaml",
        }
        assert set(archive.namelist()) == {
            "MAR-INF/MANIFEST.json",
            "digit_handler.py",
            "digit_model.py",
            "digits.pt",
            "model-config.yaml",
        }


def test_server_that_ends_early_fails_the_demo(serve_digits: ModuleType) -> None:
    with subprocess.Popen([sys.executable, "-c", "raise SystemExit(3)"]) as server:
        server.wait()
        with pytest.raises(serve_digits.DemoFailed, match=r"did not start \(code 3\)"):
            serve_digits.wait_until_ready(server, serve_digits.Ports(neighbouring_ports(3)))


@pytest.mark.torch
@pytest.mark.usefixtures("demo_path")
def test_training_is_accurate_and_shows_progress() -> None:
    pytest.importorskip("sklearn")
    said: list[str] = []
    trained = load("digit_training").train_digits(said.append)
    assert trained.accuracy > 0.95
    assert said
    assert len(trained.held_out_pixels) == len(trained.held_out_digits)


@pytest.mark.torch
@pytest.mark.usefixtures("demo_path")
def test_handler_takes_body_and_form_field_of_any_size() -> None:
    from PIL import Image

    image = io.BytesIO()
    Image.new("RGB", (32, 20), "white").save(image, "PNG")
    handler = load("digit_handler").DigitHandler()
    pixels = handler.preprocess([{"body": image.getvalue()}, {"data": image.getvalue()}])
    assert pixels.shape == (2, 1, 8, 8)
    assert pixels.min() == pixels.max() == 1.0


@pytest.mark.torch
@pytest.mark.usefixtures("demo_path")
@pytest.mark.parametrize("row", [{"body": b"no image"}, {"body": b""}, {}])
def test_handler_blames_the_client_for_what_is_no_image(row: dict[str, bytes]) -> None:
    module = load("digit_handler")
    with pytest.raises(module.PredictionException) as caught:
        module.DigitHandler().preprocess([row])
    assert caught.value.error_code == 400


@pytest.mark.torch
@pytest.mark.usefixtures("demo_path")
def test_handler_answers_digit_and_probability() -> None:
    import torch

    logits = torch.zeros(2, 10)
    logits[0, 3] = logits[1, 7] = 20.0
    answers = load("digit_handler").DigitHandler().postprocess(logits)
    assert answers == [{"digit": 3, "probability": 1.0}, {"digit": 7, "probability": 1.0}]


@pytest.mark.torch
@pytest.mark.timeout(START_LIMIT_S + 60)
def test_demo_answers_right_and_stops_cleanly(tmp_path: Path) -> None:
    pytest.importorskip("sklearn")
    first_port = neighbouring_ports(3)
    log_path = tmp_path / "demo.log"
    # The pid file of a server lies in the temporary directory: this one gets its own.
    environment = uncovered_environment() | {"TMPDIR": str(tmp_path)}
    with log_path.open("wb") as log, started_demo(first_port, tmp_path, log, environment) as demo:
        wait_for(r"Ctrl-C stops it", log_path, demo)
        text = log_path.read_text()
        assert float(re.findall(r"Test accuracy ([\d.]+)%", text)[0]) > 95
        assert re.search(r"the answer is (\d) .* the truth \1: right", text)
        png = (tmp_path / "work" / "digit.png").read_bytes()
        url = f"http://127.0.0.1:{first_port}/predictions/digits"
        request = urllib.request.Request(url, png, {"Content-Type": "image/png"})
        with urllib.request.urlopen(request, timeout=10) as response:
            assert set(json.loads(response.read())) == {"digit", "probability"}
        demo.send_signal(signal.SIGTERM)
        assert demo.wait(60) == 0
    assert log_path.read_text().endswith("Stopped.\n")
    _, _, transcript = README.read_text().partition("<!-- transcript of `make serve`: begin -->")
    shown = transcript.partition("```text\n")[2].partition("```")[0]
    assert kinds_of_lines(shown) == kinds_of_lines(log_path.read_text())
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", first_port), timeout=5)


def kinds_of_lines(transcript: str) -> set[str]:
    """What is said, whatever the numbers."""
    found = set()
    for line in transcript.splitlines():
        kind = re.sub(r"[0-9]+(\.[0-9]+)?(e[+-][0-9]+)?", "#", line)
        if kind and not kind.startswith(MAY_BE_MISSING):
            found.add(next((one for one in BEGINNINGS if kind.startswith(one)), kind))
    return found


@contextmanager
def started_demo(
    first_port: int, tmp_path: Path, log: IO[bytes], environment: dict[str, str]
) -> Iterator[subprocess.Popen[bytes]]:
    command = demo_command(first_port, tmp_path / "work")
    with subprocess.Popen(command, stdout=log, stderr=log, env=environment) as demo:
        try:
            yield demo
        finally:
            demo.terminate()  # a test that failed leaves no server behind


def demo_command(first_port: int, work_dir: Path) -> list[str]:
    options = ["--ports-from", str(first_port), "--work-dir", str(work_dir)]
    return [sys.executable, str(DEMO / "serve_digits.py"), *options]


def wait_for(pattern: str, log_path: Path, demo: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + START_LIMIT_S
    while not re.search(pattern, log_path.read_text()):
        if demo.poll() is not None or time.monotonic() > deadline:
            pytest.fail(f"the demo got no further than:\n{log_path.read_text()}")
        time.sleep(0.05)
