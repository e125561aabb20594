"""The two commands: `torchserve`, with the flags of the real one, and `torchkeep`.

What only one command needs is imported by it: `torchserve --stop` waits for no server's imports.
"""

import argparse
import os
import sys
from pathlib import Path

from torchkeep.roof.shipped import TS_COMPAT
from torchkeep.runtime import start_stop
from torchkeep.runtime.command_line import CLIENT_COMMANDS, Flags
from torchkeep.runtime.config import load_config
from torchkeep.runtime.health import ask_ping

_TS_PATH = "print the folder of the package `ts`, for tests of handlers and for editors"


def torchserve(argv: list[str] | None = None) -> None:
    """The console script with TorchServe's name, flags, messages and exit codes."""
    sys.exit(start_stop.torchserve(argv, serve))


def torchkeep(argv: list[str] | None = None) -> None:
    """Our own console script."""
    from torchkeep.modelstore import sealing_commands

    arguments = sys.argv[1:] if argv is None else argv
    if arguments and arguments[0] in sealing_commands.COMMANDS:
        sys.exit(sealing_commands.main(arguments))
    if arguments and arguments[0] in CLIENT_COMMANDS:
        sys.exit(_client_command(arguments))
    if arguments and arguments[0] == "ts-path":
        sys.exit(_ts_path(arguments[1:]))
    others = {**sealing_commands.COMMANDS, **CLIENT_COMMANDS, "ts-path": _TS_PATH}
    sys.exit(start_stop.torchkeep(arguments, serve, {"doctor": doctor, "health": health}, others))


def serve(flags: Flags) -> int:
    """See `serving.serve`."""
    from torchkeep.roof import serving

    return serving.serve(flags)


def doctor(flags: Flags) -> int:
    """See `examining.doctor`."""
    from torchkeep.roof import examining

    return examining.doctor(flags)


def _ts_path(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="torchkeep ts-path",
        description=f"{_TS_PATH[0].upper()}{_TS_PATH[1:]}: PYTHONPATH=$(torchkeep ts-path) pytest. "
        "The archivers' Python packages are there, too.",
    )
    parser.parse_args(arguments)
    sys.stdout.write(f"{TS_COMPAT}\n")
    return 0


def _client_command(arguments: list[str]) -> int:
    # Not at the top: servers are installed without what clients need.
    try:
        from torchkeep.client import commands
    except ModuleNotFoundError as error:
        if error.name not in ("dcap_qvl", "httpx"):
            raise
        sys.stderr.write(
            f"torchkeep: {arguments[0]} needs {error.name}: pip install 'torchkeep[client]'\n"
        )
        return 2
    return commands.main(arguments)


def health(flags: Flags) -> int:
    """Ask the server that runs here how it is, as the health check of a container does."""
    started_with = start_stop.running_server_flags()
    if started_with is None:
        sys.stdout.write("Unhealthy: no server of this TEMP directory runs\n")
        return 1
    config = load_config(started_with, os.environ, Path.cwd())
    is_healthy, said = ask_ping(config.inference_address)
    sys.stdout.write(f"{said}\n")
    return 0 if is_healthy else 1
