"""What this machine offers for computing, and what a server on it will use: read, not tried.

Distributions are read instead of modules: neither the frontend nor `torchkeep doctor` imports
torch.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from torchkeep.runtime.allocator import find_allocator
from torchkeep.runtime.config import Config
from torchkeep.runtime.cores import Cores, threads_of_environment, usable_cores
from torchkeep.runtime.cpu_launcher import LauncherSettings, parse_launcher_args, restrict
from torchkeep.runtime.errors import ConfigError

IPEX = "intel-extension-for-pytorch"


@dataclass(frozen=True, slots=True)
class Compute:
    """Cores, threads, allocator and engine of a server."""

    cores: Cores
    fixed_threads: int | None  # of each worker, where the user decided
    pins: bool
    allocator: str
    allocator_library: Path | None
    torch: str  # version; empty where it is not installed
    ipex: str  # version; empty where it is not installed or does not fit torch
    uses_ipex: bool
    warnings: tuple[str, ...]

    @property
    def engine(self) -> str:
        """The engine, for a person."""
        if not self.torch:
            return "no torch installed: only handlers that do without it will load"
        if self.uses_ipex:
            return f"IPEX {self.ipex} on torch {self.torch}"
        return f"torch {self.torch}"


def plan_compute(config: Config, environ: Mapping[str, str]) -> Compute:
    """Raises ConfigError where `cpu_launcher_args` cannot be followed."""
    launcher, warnings = _launcher(config)
    try:
        cores = restrict(usable_cores(), launcher)
    except ValueError as error:
        raise ConfigError(f"cpu_launcher_args: {error}") from error
    allocator, library = find_allocator(launcher.allocator)
    if launcher.allocator not in ("", "default", allocator):
        warnings.append(f"cpu_launcher_args: {launcher.allocator} is not installed, using glibc's")
    torch, ipex = _installed("torch"), _installed(IPEX)
    if ipex and ipex.split(".")[:2] != torch.split(".")[:2]:
        warnings.append(f"IPEX {ipex} does not fit torch {torch} and is left out")
        ipex = ""
    if config.ipex_enable and not ipex:
        warnings.append("ipex_enable=true, but IPEX is not installed: plain torch is used")
    return Compute(
        cores=cores,
        fixed_threads=threads_of_environment(environ) or launcher.threads,
        pins=launcher.pins and cores.are_ours_alone,
        allocator=allocator,
        allocator_library=library,
        torch=torch,
        ipex=ipex,
        uses_ipex=bool(ipex) and config.ipex_enable is not False,
        warnings=tuple(warnings),
    )


def _launcher(config: Config) -> tuple[LauncherSettings, list[str]]:
    if not config.cpu_launcher_args:
        return LauncherSettings(), []
    if not config.cpu_launcher_enable:
        return LauncherSettings(), ["cpu_launcher_args has no effect without cpu_launcher_enable"]
    try:
        settings = parse_launcher_args(config.cpu_launcher_args)
    except ValueError as error:
        raise ConfigError(f"cpu_launcher_args: {error}") from error
    if settings.without_effect:
        names = ", ".join(f"--{name}" for name in settings.without_effect)
        return settings, [f"cpu_launcher_args: {names} without effect here"]
    return settings, []


def _installed(distribution: str) -> str:
    try:
        return version(distribution)
    except PackageNotFoundError:
        return ""
