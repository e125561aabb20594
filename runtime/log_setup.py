"""Which outlet the server's log lines take: flags and environment in, an outlet out."""

import re
from collections.abc import Mapping
from pathlib import Path

from torchkeep.runtime.log_outlets import open_files
from torchkeep.runtime.logging_config import Configured, is_log4j, read_logging_config
from torchkeep.runtime.logs import Outlet, Stdout


def choose_outlet(
    log_config: str | None, vmargs: str | None, environ: Mapping[str, str]
) -> tuple[Outlet, list[str]]:
    """The outlet, ready for `configure_logging`, and what the user should be told of it.

    Raises ConfigError where `--log-config` is neither log4j's nor Python's.
    """
    stdout, warnings = Stdout(), []
    named = Path(log_config) if log_config else None
    if named is not None and not is_log4j(named):
        return Configured(named, read_logging_config(named), stdout), []
    if java_file := log_config or _log4j_in(vmargs):
        warnings.append(
            f"{java_file} is a log4j2 configuration, which is made for Java: it is not used, the"
            " log files are TorchServe's usual ones. --log-config takes a Python logging"
            " configuration (yaml)"
        )
    outlet, complaint = open_files(
        Path(environ.get("LOG_LOCATION") or "logs"),
        Path(environ.get("METRICS_LOCATION") or "logs"),
        stdout,
    )
    return outlet, [*warnings, complaint] if complaint else warnings


def _log4j_in(vmargs: str | None) -> str | None:
    found = re.search(r"-Dlog4j2?\.configurationFile=(\S+)", vmargs or "")
    return found[1] if found else None
