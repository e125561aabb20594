"""Train, pack, serve, ask: the whole way of a model in one go. `make serve` runs this.

Nothing here is private to the demo's server: it uses the commands that users type
(`torch-model-archiver`, `torchserve`) and plain HTTP.
"""

import argparse
import json
import shlex
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

HERE = Path(__file__).resolve().parent
BIN = Path(sys.executable).parent
FIRST_PORT = 8080  # TorchServe's: inference, then management and metrics
READY_LIMIT_S = 180
# The server drains for up to 60 s; only a hung one is killed.
STOP_LIMIT_S = 70


def main() -> int:
    options = _parse_options()
    ports = Ports(options.ports_from)
    work_dir: Path = options.work_dir
    # SIGTERM then ends the demo, and with it the server, as Ctrl-C does.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        ports.check_free()
        digit, png_path = prepare(work_dir)
        with running_server(work_dir, ports) as server:
            wait_until_ready(server, ports)
            ask(png_path, digit, ports)
            show_what_to_try(png_path, ports)
            server.wait()
            raise DemoFailed(f"The server ended by itself, with code {server.returncode}.")
    except DemoFailed as failure:
        say(str(failure))
        return 1
    except KeyboardInterrupt:
        say("Stopped.")
        return 0


class DemoFailed(Exception):
    """The demo cannot go on; the message tells its user why."""


class Ports:
    """Three neighbouring ports on this machine."""

    def __init__(self, first: int) -> None:
        self.inference, self.management, self.metrics = range(first, first + 3)

    def check_free(self) -> None:
        for port in (self.inference, self.management, self.metrics):
            with socket.socket() as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                try:
                    probe.bind(("127.0.0.1", port))
                except OSError as error:
                    raise DemoFailed(
                        f"Port {port} is taken (by another TorchServe?). "
                        "Free it, or choose others: make serve PORTS_FROM=9080"
                    ) from error

    def write_properties(self, path: Path) -> None:
        path.write_text(
            "".join(
                f"{name}_address=http://127.0.0.1:{port}\n" for name, port in vars(self).items()
            )
        )


def prepare(work_dir: Path) -> tuple[int, Path]:
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

    model_store = work_dir / "model_store"
    model_store.mkdir(parents=True, exist_ok=True)
    weights_path = work_dir / "digits.pt"
    torch.save(trained.state_dict, weights_path)
    pack(weights_path, model_store)

    png_path = work_dir / "digit.png"
    levels = (trained.held_out_pixels[0, 0] * 255).round().to(torch.uint8)
    Image.fromarray(levels.numpy()).save(png_path)
    return int(trained.held_out_digits[0]), png_path


def pack(weights_path: Path, model_store: Path) -> None:
    command = [
        BIN / "torch-model-archiver",
        *("--model-name", "digits", "--version", "1.0"),
        *("--model-file", HERE / "digit_model.py", "--serialized-file", weights_path),
        *("--handler", HERE / "digit_handler.py", "--config-file", HERE / "model-config.yaml"),
        *("--export-path", model_store, "--force"),
    ]
    if subprocess.run(command).returncode != 0:
        raise DemoFailed("The archiver failed, see above.")
    archive = model_store / "digits.mar"
    say(f"Packed {shown(archive)} ({archive.stat().st_size / 1000:.0f} kB)")


@contextmanager
def running_server(work_dir: Path, ports: Ports) -> Iterator[subprocess.Popen[bytes]]:
    arguments = "--start --foreground --model-store model_store --models digits=digits.mar --ncs"
    # Registering models is off by default, and every request needs a token; a demo on
    # this machine's own address can do without both.
    command = ["torchserve", *arguments.split(), "--disable-token-auth", "--enable-model-api"]
    if ports.inference != FIRST_PORT:
        ports.write_properties(work_dir / "ports.properties")
        command += ["--ts-config", "ports.properties"]
    say(f"Starting the server: {shlex.join(command)}")
    # In a process group of its own, Ctrl-C reaches the server only once, through us.
    server = subprocess.Popen([BIN / command[0], *command[1:]], cwd=work_dir, process_group=0)
    try:
        yield server
    finally:
        # A second Ctrl-C must not leave a server behind.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        if server.poll() is None:
            say("Stopping the server ...")
            server.terminate()
        try:
            server.wait(STOP_LIMIT_S)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()


def wait_until_ready(server: subprocess.Popen[bytes], ports: Ports) -> None:
    """Ready is a worker that has loaded the model; until then the server answers 503."""
    started = last_said = time.monotonic()
    while not _is_ready(ports):
        now = time.monotonic()
        if server.poll() is not None:
            raise DemoFailed(f"The server did not start (code {server.returncode}), see above.")
        if now - started > READY_LIMIT_S:
            raise DemoFailed(f"The server was not ready after {READY_LIMIT_S} s.")
        if now - last_said > 2:
            say(f"  waiting for the model to load, {now - started:.0f} s")
            last_said = now
        time.sleep(0.5)  # each look is a line in the server's access log
    say(f"Ready after {time.monotonic() - started:.1f} s")


def ask(png_path: Path, digit: int, ports: Ports) -> None:
    url = f"http://127.0.0.1:{ports.inference}/predictions/digits"
    try:
        answer = json.loads(_fetch(url, png_path.read_bytes()))
    except urllib.error.HTTPError as error:
        raise DemoFailed(f"The prediction failed: {error.code} {error.read()!r}") from error
    verdict = "right" if answer["digit"] == digit else "wrong"
    say(
        f"Sent {shown(png_path)}, a digit it never saw: the answer is {answer['digit']} "
        f"(probability {answer['probability']}), the truth {digit}: {verdict}"
    )


def show_what_to_try(png_path: Path, ports: Ports) -> None:
    inference, management = (
        f"http://127.0.0.1:{port}" for port in (ports.inference, ports.management)
    )
    register = "url=digits.mar&model_name=again&initial_workers=1"
    say(
        "\nThe server stays up; Ctrl-C stops it. Try, in another terminal:\n"
        f"  curl {inference}/predictions/digits -T {shown(png_path)}\n"
        f"  curl {management}/models/digits\n"
        f"  tail {shown(png_path.with_name('logs') / 'ts_metrics.log')}\n"
        f"  curl -X POST '{management}/models?{register}'\n"
    )


def say(line: str) -> None:
    print(line, flush=True)  # noqa: T201 - talking to the user is this program's purpose


def shown(path: Path) -> str:
    """The path as a user standing here would type it."""
    return shlex.quote(
        str(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path)
    )


def _is_ready(ports: Ports) -> bool:
    try:
        versions = json.loads(_fetch(f"http://127.0.0.1:{ports.management}/models/digits"))
    except (OSError, json.JSONDecodeError):
        return False
    return any(worker["status"] == "READY" for worker in versions[0]["workers"])


def _fetch(url: str, body: bytes | None = None) -> bytes:
    # No proxy stands between us and this machine, whatever the environment says.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    headers = {"Content-Type": "image/png"} if body is not None else {}
    request = urllib.request.Request(url, data=body, headers=headers)
    with opener.open(request, timeout=30) as response:
        return response.read()


def _parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--ports-from",
        type=int,
        default=FIRST_PORT,
        metavar="N",
        help="serve on N, N+1 and N+2 instead of 8080-8082",
    )
    parser.add_argument(
        "--work-dir",
        type=Path,
        default=HERE.parent / ".demo",
        metavar="DIR",
        help="where archive, image and logs go (.demo)",
    )
    options = parser.parse_args()
    options.work_dir = options.work_dir.resolve()
    return options


if __name__ == "__main__":
    sys.exit(main())
