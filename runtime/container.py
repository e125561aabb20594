"""What a container starts: `python -P -m torchkeep.runtime.container`, as Dockerfile.tdx has it.

The arguments are those that TorchServe's image takes. `serve` is the server with the image's
configuration, `torchserve --start ...` is kept in the foreground, anything else runs as it is
given. Each takes the place of this process (`exec`), so the server is the container's first
process: it gets the SIGTERM, and the container ends when the server does, with its exit code.
"""

import os
import signal
import sys
from collections.abc import Mapping
from pathlib import Path

from torchkeep.runtime.command_line import parse_torchserve
from torchkeep.runtime.processes import STOP_SIGNALS
from torchkeep.runtime.start_stop import SERVER_COMMAND

VOLUME = Path("/run/torchkeep")  # the one place that is written to
CONFIG = "/home/model-server/config.properties"
_DIRECTORIES = ("TEMP", "LOG_LOCATION", "METRICS_LOCATION", "HOME")  # variables of Dockerfile.tdx


def main() -> int:
    """Returns only where nothing could be started, with the exit code a shell would have."""
    command = server_command(sys.argv[1:] or ["serve"])
    is_server = command is not None
    try:
        make_directories(os.environ)
    except OSError as error:
        if is_server:
            sys.stderr.write(f"{_what_to_mount(error)}\n")
            return 1
    if command is None:
        command = sys.argv[1:]
    else:
        # The first process of a container ignores a signal until it handles it: one that comes
        # while the server starts waits for it.
        signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
    try:
        os.execvp(command[0], command)
    except OSError as error:
        sys.stderr.write(f"{command[0]} cannot be run: {error.strerror}\n")
        return 127 if isinstance(error, FileNotFoundError) else 126


def server_command(arguments: list[str]) -> list[str] | None:
    """How the server is started that these arguments ask for; None if they ask for none.

    Leaves through `SystemExit(2)` where `torchserve` is used wrongly.
    """
    program, *rest = arguments
    if program == "serve":
        # As in TorchServe's image. What follows comes last, and so wins.
        return [*SERVER_COMMAND, "--start", "--ts-config", CONFIG, "--disable-token-auth", *rest]
    if program == "torchserve" and parse_torchserve(rest).action == "start":
        return [*SERVER_COMMAND, *rest]
    if arguments[:2] == ["torchkeep", "serve"]:
        return [*SERVER_COMMAND, *rest[1:]]
    return None


def make_directories(environ: Mapping[str, str]) -> None:
    """Where a server writes; raises OSError, which names what cannot be written."""
    named = [Path(environ[name]) for name in _DIRECTORIES if environ.get(name)]
    for directory in named:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    for directory in named:
        if not os.access(directory, os.W_OK | os.X_OK):
            raise PermissionError(0, "it cannot be written", str(directory))


def _what_to_mount(error: OSError) -> str:
    ids = f"uid={os.geteuid()},gid={os.getegid()}"
    return (
        f"torchkeep: no place to write: {error.filename}: {error.strerror}. Mount memory at "
        f"{VOLUME} that user {os.geteuid()} can write: docker or podman run --tmpfs "
        f"{VOLUME}:{ids},mode=700,size=2g; in Kubernetes an emptyDir with medium: Memory. Logs, "
        "temporary files, unpacked models and key_file.json go there, and nowhere else"
    )


if __name__ == "__main__":
    sys.exit(main())
