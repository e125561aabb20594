"""Starts and stops `torchserve` from a test or a notebook, and registers models with it."""

import os
import shutil
import sys
from collections.abc import Iterable, Mapping
from queue import Queue
from subprocess import PIPE, STDOUT, Popen, run
from threading import Thread
from typing import IO, Any

_MANAGEMENT = "http://localhost:8081"
_STARTED = "Model server started"

_Params = Mapping[str, str] | Iterable[tuple[str, str]]


def start(
    model_store: str | None = None,
    snapshot_file: str | None = None,
    no_config_snapshots: bool = False,
    plugin_folder: str | None = None,
    disable_token: bool = False,
    models: str | None = None,
    enable_model_api: bool = False,
) -> "Queue[str | None]":
    """Stop the server that runs, start one, and wait until it listens.

    What it prints goes to standard output, and, from then on, into the queue that is returned;
    None ends it. A server that ends instead of listening is a RuntimeError with its last words.
    """
    if model_store is None:
        raise TypeError("start() needs model_store: the directory with the archives")
    stop()
    flags = ["--start", "--model-store", model_store]
    for name, value in (("--plugins-path", plugin_folder), ("--ts-config", snapshot_file)):
        flags += [name, value] if value else []
    flags += ["--no-config-snapshots"] if no_config_snapshots else []
    flags += ["--disable-token-auth"] if disable_token else []
    flags += ["--models", *models.split()] if models else []
    flags += ["--enable-model-api"] if enable_model_api else []
    # The server inherits the pipe from this process, which ends when it has started it.
    launcher = Popen([_torchserve(), *flags], stdout=PIPE, stderr=STDOUT, text=True)
    assert launcher.stdout is not None, "it is a pipe"
    lines: Queue[str | None] = Queue()
    Thread(target=_hand_on, args=(launcher, launcher.stdout, lines), daemon=True).start()
    last: list[str] = []
    while (line := lines.get()) is not None:
        last = [*last[-9:], line]
        if _STARTED in line:
            return lines
    raise RuntimeError(f"torchserve ended before it listened. Its last words:\n{''.join(last)}")


def stop(wait: bool = True) -> None:
    """Stop the server that runs; with `wait`, return when it has ended."""
    run([_torchserve(), "--stop", *(["--foreground"] if wait else [])], check=False)


def register_model(model_name: str, url: str) -> Any:
    """Register a model with one worker, and wait for it; returns the response of `requests`."""
    return register_model_with_params(
        (
            ("model_name", model_name),
            ("url", url),
            ("initial_workers", "1"),
            ("synchronous", "true"),
        )
    )


def register_model_with_params(params: _Params) -> Any:
    """POST to the management API at its usual address; returns the response of `requests`."""
    try:
        import requests
    except ImportError as error:
        raise ImportError(
            "ts.launcher registers models by requests: pip install requests"
        ) from error
    return requests.post(f"{_MANAGEMENT}/models", params=params)


def _hand_on(launcher: "Popen[str]", output: IO[str], lines: "Queue[str | None]") -> None:
    """Read all that the server prints, for as long as it lives: it must not wait for a reader."""
    with output:
        for line in output:
            sys.stdout.write(line)
            sys.stdout.flush()
            lines.put(line)
    launcher.wait()
    lines.put(None)


def _torchserve() -> str:
    """The command of this Python's environment, else the first on PATH."""
    beside = os.path.dirname(sys.executable)
    path = os.pathsep.join((beside, os.environ.get("PATH", os.defpath)))
    found = shutil.which("torchserve", path=path)
    if found is None:
        raise FileNotFoundError("there is no torchserve, neither beside this Python nor on PATH")
    return found
