"""Reads the configuration, and the plugins that belong to it."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from torchkeep.frontend.plugin_endpoints import check_endpoints
from torchkeep.runtime.command_line import Flags
from torchkeep.runtime.config import Config, load_config
from torchkeep.runtime.errors import ConfigError
from torchkeep.runtime.plugin_loading import Plugins, load_plugins


def read_configuration(
    flags: Flags, environ: Mapping[str, str], cwd: Path
) -> tuple[Config, Plugins]:
    """The configuration and the plugins: either may come from the other.

    Plugins that flags or a file name are loaded first, because one of them may keep the snapshot
    that is to be restored. Otherwise a snapshot that is a file may name plugins.

    Raises ConfigError for what cannot be used, of either.
    """
    try:
        early = load_config(replace(flags, no_config_snapshots=True), environ, cwd)
    except ConfigError:
        early = Config()  # raised again below, unless that file does not count
    plugins = load_plugins(early.plugins_path, cwd, is_confidential=early.is_confidential)
    # Whoever can write a snapshot could switch off at the next start what makes it confidential.
    keeps_snapshots = not (flags.no_config_snapshots or early.is_confidential)
    flags = replace(flags, no_config_snapshots=not keeps_snapshots)
    config = load_config(flags, environ, cwd, plugins.open_store() if keeps_snapshots else None)
    if (config.plugins_path, config.is_confidential) != (early.plugins_path, early.is_confidential):
        plugins = load_plugins(config.plugins_path, cwd, is_confidential=config.is_confidential)
        if keeps_snapshots:
            config = replace(config, snapshots=plugins.open_store() or config.snapshots)
    if config.is_confidential:
        config = replace(config, snapshots=None)
    shares_port = config.inference_address == config.management_address
    check_endpoints(plugins.endpoints, share_port=shares_port)
    config.warnings.extend(plugins.warnings)
    return config, plugins
