"""`system_metrics_cmd`: a script of the user's that reads the machine, in TorchServe's protocol.

It gets the numbers of the worker processes in one line on its stdin, and prints lines such as

    CPUUtilization.Percent:12.5|#Level:Host|#hostname:vm,timestamp:1717105307

then an empty line, and what processes use, which the server reads itself.
"""

import asyncio
import logging
import os
import re
import shlex
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from torchkeep.frontend.metrics import SYSTEM_METRICS
from torchkeep.frontend.zygote_client import ZygoteClient

log = logging.getLogger(__name__)

LIMIT_S = 30.0  # for one reading
MAX_OUTPUT_BYTES = 1 << 20

_LINE = re.compile(r"(\w+)\.\w+:([-+0-9.,e]+)\|#")


@dataclass(frozen=True, slots=True)
class MetricScript:
    """Runs the script once for each reading."""

    zygote: ZygoteClient
    command: Sequence[str]  # the script and its arguments
    home: Path  # where it runs, and what its path is relative to
    environment: Mapping[str, str]
    worker_pids: Callable[[], list[int]]

    async def read(self) -> list[tuple[str, float]]:
        """The figures that are known, by name. A script that fails costs them, and a log line."""
        with (
            tempfile.TemporaryFile() as asked,
            tempfile.TemporaryFile() as output,
            tempfile.TemporaryFile() as errors,
        ):
            asked.write(",".join(map(str, self.worker_pids())).encode() + b"\n")
            asked.seek(0)
            child = self.zygote.start(
                [sys.executable, *self.command],
                self.environment,
                output.fileno(),
                errors.fileno(),
                self.home,
                stdin=asked.fileno(),
            )
            try:
                async with asyncio.timeout(LIMIT_S):
                    status = await asyncio.shield(child.exited)
            except TimeoutError:
                log.warning("system_metrics_cmd: %s runs for over %g s", self.command[0], LIMIT_S)
                return []
            finally:
                child.kill()
                await child.exited
            if status == 0:
                return parse(_text(output))
            last = _text(errors).strip().rpartition("\n")[2]
            log.warning("system_metrics_cmd: %s failed: %s", self.command[0], last or status)
            return []


def _text(file: BinaryIO) -> str:
    file.seek(0)
    return file.read(MAX_OUTPUT_BYTES).decode("utf-8", "replace")


def parse(output: str) -> list[tuple[str, float]]:
    """Figures that TorchServe has names for, up to the empty line."""
    found = []
    for line in output.splitlines():
        if not line.strip():
            break
        match = _LINE.match(line)
        if match is None or match[1] not in SYSTEM_METRICS:
            continue
        try:
            found.append((match[1], float(match[2])))
        except ValueError:
            continue
    return found


def script_of(setting: str, home: Path) -> list[str] | None:
    """The command that the setting names, or None where its script is not there."""
    try:
        words = shlex.split(setting)
    except ValueError:
        return None
    if not words or not os.path.isfile(home / words[0]):
        return None
    return [str(home / words[0]), *words[1:]]
