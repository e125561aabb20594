"""Train, pack, serve, ask: the whole way of a model in one go. `make serve` runs this.

Nothing here is private to the demo's server: it uses the commands that users type
(`torch-model-archiver`, `torchserve`) and plain HTTP.
"""

import argparse
import json
import shlex
import signal
import subprocess
import sys
import time
import urllib.error
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from digit_archive import BIN, HERE, DemoFailed, check_free, fetch, prepare, say, shown, stop

FIRST_PORT = 8080  # TorchServe's: inference, then management and metrics
READY_LIMIT_S = 180


def main() -> int:
    options = _parse_options()
    ports = Ports(options.ports_from)
    work_dir: Path = options.work_dir
    # SIGTERM then ends the demo, and with it the server, as Ctrl-C does.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        check_free(vars(ports).values(), "make serve")
        digit, png_path = prepare(work_dir, work_dir / "model_store")
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


class Ports:
    """Three neighbouring ports on this machine."""

    def __init__(self, first: int) -> None:
        self.inference, self.management, self.metrics = range(first, first + 3)

    def write_properties(self, path: Path) -> None:
        path.write_text(
            "".join(
                f"{name}_address=http://127.0.0.1:{port}\n" for name, port in vars(self).items()
            )
        )


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
        if server.poll() is None:
            say("Stopping the server ...")
        stop(server)


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
        answer = json.loads(fetch(url, png_path.read_bytes()))
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


def _is_ready(ports: Ports) -> bool:
    try:
        versions = json.loads(fetch(f"http://127.0.0.1:{ports.management}/models/digits"))
    except (OSError, json.JSONDecodeError):
        return False
    return any(worker["status"] == "READY" for worker in versions[0]["workers"])


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
