"""`torchserve` and `torchkeep` from the first check to the exit code, as TorchServe answers.

The server itself is passed in (`serve`). In the foreground it runs in this very process; in
the background a new process runs `python -m torchkeep.runtime --foreground` with the same
arguments, and keeps the terminal for its output, as TorchServe's does.
"""

import os
import select
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

from torchkeep.runtime.command_line import (
    TORCHSERVE_VERSION,
    Flags,
    parse_torchkeep,
    parse_torchserve,
)
from torchkeep.runtime.errors import ConfigError
from torchkeep.runtime.key_file import key_file
from torchkeep.runtime.pid_file import (
    PidFile,
    default_pid_file,
    is_alive,
    is_server,
    server_arguments,
)

STOP_TIMEOUT_S = 60  # how long `--stop --foreground` waits; the server drains no longer either

# A server that is a process of its own; TorchServe's arguments follow.
SERVER_COMMAND = (sys.executable, "-P", "-m", "torchkeep.runtime", "--foreground")

Serve = Callable[[Flags], int]


def torchserve(argv: Sequence[str] | None, serve: Serve) -> int:
    """TorchServe: its launcher ignores how the server in the foreground ended, and says 0."""
    arguments = sys.argv[1:] if argv is None else argv
    flags = parse_torchserve(arguments)

    def launched(flags: Flags) -> int:
        try:
            serve(flags)
        except ConfigError as error:
            _say_invalid(error)
        return 0

    return _run(flags, arguments, launched)


def server_process(argv: Sequence[str] | None, serve: Serve) -> int:
    """The process that `torchserve` starts in the background; it tells how it ended."""
    arguments = sys.argv[1:] if argv is None else argv
    return _run(parse_torchserve(arguments), arguments, serve)


def torchkeep(
    argv: Sequence[str] | None,
    serve: Serve,
    inspections: Mapping[str, Serve],
    others: Mapping[str, str] = MappingProxyType({}),
) -> int:
    """`inspections` only look, by action; `others` are run elsewhere, for the help."""
    arguments = sys.argv[1:] if argv is None else argv
    flags = parse_torchkeep(arguments, others)
    if flags.action not in inspections:
        return _run(flags, arguments, serve)
    try:
        return inspections[flags.action](flags)
    except ConfigError as error:
        _say_invalid(error)
        return 1


def _run(flags: Flags, arguments: Sequence[str], serve: Serve) -> int:
    pid_file = default_pid_file()
    try:
        pid = _running_server(pid_file)
    except ValueError as error:
        sys.stderr.write(f"ValueError: {error} ({pid_file.path})\n")
        return 1
    if flags.action == "version":  # TorchServe: after the look at the file
        _say(f"TorchServe Version is {TORCHSERVE_VERSION}")
        return 0
    if flags.action == "stop":
        return _stop(pid, pid_file, flags.foreground)
    if pid is not None:
        _say("TorchServe is already running, please use torchserve --stop to stop TorchServe.")
        return 1
    if complaint := _complaint(flags, os.environ):
        _say(complaint)
        return 1
    if not flags.foreground:
        pid_file.write(_spawn(arguments))
        return 0
    pid_file.write(os.getpid())
    try:
        return serve(flags)
    except ConfigError as error:
        _say_invalid(error)
        return 1
    finally:
        pid_file.remove_own()


def running_server_flags() -> Flags | None:
    """What the server was started with that the pid file names; None if none runs.

    Of another working directory than this process has, its relative paths lead elsewhere.
    """
    try:
        pid = default_pid_file().read()
    except ValueError:
        return None
    arguments = None if pid is None else server_arguments(pid)
    if arguments is None:
        return None
    return parse_torchserve(arguments[1:] if arguments[:1] == ["serve"] else arguments)


def _running_server(pid_file: PidFile) -> int | None:
    pid = pid_file.read()
    if pid is None or pid == os.getpid():  # our own: the launcher wrote it before we looked
        return None
    if not is_alive(pid):
        _say("Removing orphan pid file.")
        pid_file.remove()
        return None
    # TorchServe: another program's pid counts as not running, and the file stays.
    return pid if is_server(pid) else None


def _complaint(flags: Flags, environ: Mapping[str, str]) -> str | None:
    """The first thing TorchServe's launcher would object to; the order is its own."""
    if flags.log_config and not os.path.isfile(flags.log_config):
        return f"--log-config file not found: {os.path.realpath(flags.log_config)}"
    temp = environ.get("TEMP")
    if temp and not os.path.isdir(temp):
        return f"Invalid temp directory: {temp}, please check TEMP environment variable."
    ts_config = environ.get("TS_CONFIG_FILE") or flags.ts_config
    if ts_config and not os.path.isfile(ts_config):
        return f"--ts-config file not found: {ts_config}"
    model_store = flags.model_store or (ts_config and _model_store_in(Path(ts_config)))
    if not model_store:
        return "Missing mandatory parameter --model-store"
    if not os.path.isdir(model_store):
        return f"--model-store directory not found: {model_store}"
    if flags.workflow_store and not os.path.isdir(flags.workflow_store):
        return f"--workflow-store directory not found: {flags.workflow_store}"
    if flags.cpp_log_config and not os.path.isfile(flags.cpp_log_config):
        return f"--cpp-log-config file not found: {os.path.realpath(flags.cpp_log_config)}"
    return None


def _model_store_in(ts_config: Path) -> str | None:
    # TorchServe: the launcher knows only key=value lines here, and substitutes nothing.
    found = None
    for line in ts_config.read_text(errors="replace").splitlines():
        name, separator, value = line.partition("=")
        if separator and name.strip() == "model_store":
            found = value.strip()
    return found


def _spawn(arguments: Sequence[str]) -> int:
    return os.posix_spawn(
        sys.executable,
        [*SERVER_COMMAND, *arguments],
        os.environ,
        setsid=True,
        file_actions=[(os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0)],
    )


def _stop(pid: int | None, pid_file: PidFile, wait: bool) -> int:
    if pid is None:
        _say("TorchServe is not currently running.")
        return 0
    try:
        # The descriptor pins the process: its number cannot become another's in between.
        process = os.pidfd_open(pid)
        try:
            signal.pidfd_send_signal(process, signal.SIGTERM)
            # At once, so that the next --start need not wait for the drain.
            pid_file.remove()
            key_file(Path.cwd()).unlink(missing_ok=True)
            if not wait:
                _say("TorchServe has stopped.")
            elif not _has_ended(process, STOP_TIMEOUT_S):
                _say("Stopping TorchServe took too long.")
        finally:
            os.close(process)
    except ProcessLookupError:
        pid_file.remove()
        _say("TorchServe already stopped.")
    return 0


def _has_ended(process: int, timeout_s: float) -> bool:
    poll = select.poll()
    poll.register(process, select.POLLIN)
    return bool(poll.poll(timeout_s * 1000))


def _say_invalid(error: ConfigError) -> None:
    _say(f"Invalid configuration: {error}")


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()  # before a server in this process, or a child, writes its own
