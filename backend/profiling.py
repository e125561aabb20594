"""`TS_BENCHMARK=true`: what a worker spends its time with, as Python's profiler sees it."""

import cProfile
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

PROFILE = Path("/tmp/tsPythonProfile.prof")  # TorchServe's; the last worker that ends has it


def is_asked_for(environ: Mapping[str, str]) -> bool:
    return environ.get("TS_BENCHMARK", "") in ("True", "true", "TRUE")


def profiled(run: Callable[[], object], path: Path = PROFILE) -> None:
    """Run it to its end, and leave a file for `pstats`."""
    profile = cProfile.Profile()
    try:
        profile.runcall(run)
    finally:
        try:
            profile.dump_stats(path)
        except OSError as error:  # the sandbox, or another user's file
            sys.stderr.write(f"TS_BENCHMARK: no profile is kept: {error}\n")
