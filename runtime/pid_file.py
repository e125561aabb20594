"""The file through which `torchserve --stop` finds the server.

Everyone may write to the temp directory, so the file is only a hint: its number is believed
when that process's command line is that of our server.
"""

import os
import tempfile
from pathlib import Path

_MODULE = "torchkeep.runtime"  # python -m torchkeep.runtime: a server in the background
_COMMANDS = ("torchserve", "torchkeep")  # the scripts: a server in the foreground


class PidFile:
    def __init__(self, path: Path) -> None:
        self.path = path

    def read(self) -> int | None:
        """The number on the first line, None without a file. ValueError if it is no number."""
        try:
            first, *_ = self.path.read_text(errors="replace").splitlines() or [""]
        except FileNotFoundError:
            return None
        return int(first)

    def write(self, pid: int) -> None:
        # Replaced, not overwritten: in a shared directory the name may be someone's symlink.
        descriptor, name = tempfile.mkstemp(dir=self.path.parent, prefix=self.path.name)
        try:
            with os.fdopen(descriptor, "w") as file:
                file.write(f"{pid}\n")
            os.replace(name, self.path)
        except BaseException:
            os.unlink(name)
            raise

    def remove(self) -> None:
        self.path.unlink(missing_ok=True)

    def remove_own(self) -> None:
        """Leave the file alone if a later server has already put its number there."""
        try:
            is_own = self.read() == os.getpid()
        except ValueError:
            is_own = False
        if is_own:
            self.remove()


def default_pid_file() -> PidFile:
    return PidFile(Path(tempfile.gettempdir(), ".model_server.pid"))


def is_alive(pid: int) -> bool:
    """Not one that has ended and waits for its parent to look: in a container perhaps for ever."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(errors="replace")
    except OSError:
        return False
    return stat.rpartition(") ")[2][:1] not in "ZX"


def is_server(pid: int) -> bool:
    """Whether this process is a Torchkeep server, to the eye of `ps`."""
    return server_arguments(pid) is not None


def server_arguments(pid: int) -> list[str] | None:
    """What that server was started with, but for its program; None if it is no server."""
    try:
        line = Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace")
    except OSError:
        return None
    arguments = line.removesuffix("\0").split("\0")
    if _MODULE in arguments:
        return arguments[arguments.index(_MODULE) + 1 :]
    for index, argument in enumerate(arguments[:2]):
        if os.path.basename(argument) in _COMMANDS:
            return arguments[index + 1 :]
    return None
