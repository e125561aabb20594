"""Train and pack the demo's model, and what both demos say and ask with."""

import shlex
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterable
from pathlib import Path

HERE = Path(__file__).resolve().parent
BIN = Path(sys.executable).parent
# The server drains for up to 60 s; only a hung one is killed.
STOP_LIMIT_S = 70


class DemoFailed(Exception):
    """The demo cannot go on; the message tells its user why."""


def check_free(ports: Iterable[int], command: str) -> None:
    """Raises DemoFailed, which tells how `command` is given other ports."""
    for port in ports:
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError as error:
                raise DemoFailed(
                    f"Port {port} is taken (by another TorchServe?). "
                    f"Free it, or choose others: {command} PORTS_FROM=9080"
                ) from error


def prepare(work_dir: Path, model_store: Path) -> tuple[int, Path]:
    """Train and pack; the answer is a held-out digit and where its image lies."""
    say("Loading torch ...")
    import torch
    from digit_training import train_digits
    from PIL import Image

    say("Training a digit classifier on scikit-learn's digits ...")
    started = time.monotonic()
    trained = train_digits(say)
    elapsed = time.monotonic() - started
    say(f"Test accuracy {trained.accuracy:.1%}, after {elapsed:.1f} s of training")

    model_store.mkdir(parents=True, exist_ok=True)
    weights_path = work_dir / "digits.pt"
    torch.save(trained.state_dict, weights_path)
    pack(weights_path, model_store)

    png_path = work_dir / "digit.png"
    levels = (trained.held_out_pixels[0, 0] * 255).round().to(torch.uint8)
    Image.fromarray(levels.numpy()).save(png_path)
    return int(trained.held_out_digits[0]), png_path


def pack(weights_path: Path, model_store: Path, name: str = "digits") -> None:
    command = [
        BIN / "torch-model-archiver",
        *("--model-name", name, "--version", "1.0"),
        *("--model-file", HERE / "digit_model.py", "--serialized-file", weights_path),
        *("--handler", HERE / "digit_handler.py", "--config-file", HERE / "model-config.yaml"),
        *("--export-path", model_store, "--force"),
    ]
    if subprocess.run(command).returncode != 0:
        raise DemoFailed("The archiver failed, see above.")
    archive = model_store / f"{name}.mar"
    say(f"Packed {shown(archive)} ({archive.stat().st_size / 1000:.0f} kB)")


def stop(*servers: subprocess.Popen[bytes]) -> None:
    """End servers, in every case, and all at once."""
    # A second Ctrl-C must not leave a server behind.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    for server in servers:
        if server.poll() is None:
            server.terminate()
    for server in servers:
        try:
            server.wait(STOP_LIMIT_S)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()


def fetch(url: str, body: bytes | None = None) -> bytes:
    """The answer's body. Raises urllib.error.HTTPError and OSError."""
    # No proxy stands between us and this machine, whatever the environment says.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    headers = {"Content-Type": "image/png"} if body is not None else {}
    request = urllib.request.Request(url, data=body, headers=headers)
    with opener.open(request, timeout=30) as response:
        found: bytes = response.read()
    return found


def say(line: str) -> None:
    print(line, flush=True)  # noqa: T201 - talking to the user is this program's purpose


def shown(path: Path) -> str:
    """The path as a user standing here would type it."""
    return shlex.quote(
        str(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path)
    )
