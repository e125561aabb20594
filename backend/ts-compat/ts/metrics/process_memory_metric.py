"""The resident memory of processes, as TorchServe's server asks its workers' machine for it."""

import logging
import os
from typing import IO

_log = logging.getLogger(__name__)


def check_process_mem_usage(stdin: IO[str]) -> None:
    """Log `{pid}:{bytes}` for each process of the next line of `stdin`, which has commas between.

    A process that is gone has 0 bytes.
    """
    line = stdin.readline().strip()
    for pid in line.split(",") if line else []:
        _log.info("%s:%d", pid, get_cpu_usage(pid))


def get_cpu_usage(pid: str) -> int:
    """Resident memory in bytes, whatever TorchServe's name for it says."""
    try:
        with open(f"/proc/{int(pid)}/statm", encoding="ascii") as file:
            pages = int(file.read().split()[1])
    except (FileNotFoundError, ProcessLookupError):
        _log.error("Failed get process for pid: %s", pid)
        return 0
    return pages * os.sysconf("SC_PAGE_SIZE")
