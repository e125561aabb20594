"""`torchkeep doctor`: what this machine offers a server."""

import os
import sys
from pathlib import Path

from torchkeep.frontend.thread_plan import ThreadPlan
from torchkeep.roof.workers import startup_workers
from torchkeep.runtime.command_line import Flags
from torchkeep.runtime.compute import plan_compute
from torchkeep.runtime.config import load_config
from torchkeep.runtime.doctor import examine
from torchkeep.runtime.kernel import kernel_layers


def doctor(flags: Flags) -> int:
    """Say what this machine offers a server, what one would use, and what to change."""
    config = load_config(flags, os.environ, Path.cwd())
    compute = plan_compute(config, os.environ)
    plan = ThreadPlan(compute.cores, compute.fixed_threads, compute.pins)
    workers = startup_workers(config, compute)
    for line in examine(
        compute, kernel_layers().describe(), plan.describe(workers), workers, Path("/proc")
    ):
        sys.stdout.write(f"{line}\n")
    return 0
