"""The configuration and the plugins: either may come from the other."""

import os
from pathlib import Path
from typing import Any

import pytest

from torchkeep.roof.configuring import read_configuration
from torchkeep.runtime.command_line import Flags
from torchkeep.runtime.config import Config
from torchkeep.runtime.errors import ConfigError
from torchkeep.runtime.plugin_loading import Plugins

STORE = """
from pathlib import Path
from torchkeep.runtime.plugins import SnapshotStore, endpoint

class Store(SnapshotStore):
    def save(self, name, text): pass
    def last(self):
        kept = Path(__file__).with_name("kept")
        return ("1-startup.cfg", kept.read_text()) if kept.exists() else None

@endpoint("hello")
def hello(request): return "hello"
"""


@pytest.fixture
def plugin(tmp_path: Path) -> Path:
    path = tmp_path / "plugins" / "store.py"
    path.parent.mkdir()
    path.write_text(STORE)
    return path


def configured(cwd: Path, **flags: Any) -> tuple[Config, Plugins]:
    return read_configuration(Flags(**flags), {}, cwd)


@pytest.mark.parametrize("named_by", ["flag", "config.properties", "file"])
def test_a_plugins_store_is_asked_for_the_snapshot(
    named_by: str, tmp_path: Path, plugin: Path
) -> None:
    if named_by == "flag":
        flags = {"plugins_path": "plugins"}
    else:
        (tmp_path / named_by).write_text("plugins_path=plugins\njob_queue_size=1\n")
        flags = {"ts_config": "file"} if named_by == "file" else {}
    config, plugins = configured(tmp_path, **flags)
    assert str(config.snapshots) == "Store"
    assert config.job_queue_size == (100 if named_by == "flag" else 1)
    assert [found.endpoint.path for found in plugins.endpoints] == ["hello"]

    plugin.with_name("kept").write_text("job_queue_size=7\nplugins_path=plugins\n")
    config, plugins = configured(tmp_path, **flags)
    # A file that the command line names counts more than any snapshot.
    assert config.job_queue_size == (1 if named_by == "file" else 7)
    assert str(config.source) == ("file" if named_by == "file" else "1-startup.cfg")
    assert [found.endpoint.path for found in plugins.endpoints] == ["hello"]


def test_without_snapshots_no_store_is_made(tmp_path: Path, plugin: Path) -> None:
    plugin.write_text(STORE.replace("    def save", "    def __init__(self): 1 / 0\n    def save"))
    config, plugins = configured(tmp_path, plugins_path="plugins", no_config_snapshots=True)
    assert config.snapshots is None
    assert len(plugins.endpoints) == 1
    with pytest.raises(ConfigError, match="ZeroDivisionError"):
        configured(tmp_path, plugins_path="plugins")


def test_a_snapshot_in_a_file_brings_its_plugins_back(tmp_path: Path, plugin: Path) -> None:
    plugin.write_text(STORE.replace("(SnapshotStore)", ""))
    snapshots = tmp_path / "logs" / "config"
    snapshots.mkdir(parents=True)
    (snapshots / "1-startup.cfg").write_text("plugins_path=plugins\n")
    config, plugins = configured(tmp_path)
    assert str(config.source) == "logs/config/1-startup.cfg"
    assert [found.endpoint.path for found in plugins.endpoints] == ["hello"]


@pytest.mark.parametrize(
    ("last", "cause"),
    [
        ("raise OSError('gone')", "OSError: gone"),
        ("return 'text'", "ValueError: too many values"),
        ("return 1, 2", "TypeError: last\\(\\) must return None or two texts"),
    ],
)
def test_a_store_that_cannot_say_what_was_served_stops_the_start(
    last: str, cause: str, tmp_path: Path, plugin: Path
) -> None:
    plugin.write_text(STORE.replace("kept = ", f"{last}\n        kept = "))
    with pytest.raises(ConfigError, match=f"cannot be read from Store: {cause}.*--ncs"):
        configured(tmp_path, plugins_path="plugins")


def test_a_snapshot_that_makes_the_server_confidential_is_asked_first(
    tmp_path: Path, plugin: Path
) -> None:
    """Its store has run by then, but nothing else has, and nothing else will."""
    plugin.with_name("kept").write_text("plugins_path=plugins\nsandbox=strict\n")
    if os.geteuid() == 0:
        os.chown(plugin, -1, 12345)
    plugin.chmod(0o664)
    if plugin.stat().st_gid == 0:
        pytest.skip("only root's own group may write here")
    with pytest.raises(ConfigError, match="can be written by group"):
        configured(tmp_path, plugins_path="plugins")


@pytest.mark.parametrize("setting", ["sandbox=strict", "key_source=cdh:http://127.0.0.1:8006"])
def test_a_confidential_server_keeps_no_snapshot_and_restores_none(
    setting: str, tmp_path: Path
) -> None:
    """Whoever can write one could switch the sandbox off at the next start."""
    snapshots = tmp_path / "logs" / "config"
    snapshots.mkdir(parents=True)
    (snapshots / "1-startup.cfg").write_text("sandbox=off\n")
    (tmp_path / "config.properties").write_text(f"{setting}\n")
    config, _ = configured(tmp_path)
    assert (str(config.source), config.snapshots) == ("config.properties", None)
    assert config.is_confidential

    (tmp_path / "config.properties").write_text("job_queue_size=1\n")
    config, _ = configured(tmp_path)
    assert (str(config.source), config.sandbox) == ("logs/config/1-startup.cfg", "off")
    # One that makes the server confidential is the last.
    (snapshots / "2-startup.cfg").write_text(f"{setting}\n")
    config, _ = configured(tmp_path)
    assert (str(config.source), config.snapshots) == ("logs/config/2-startup.cfg", None)


def test_endpoints_that_cannot_be_together_stop_the_start(tmp_path: Path, plugin: Path) -> None:
    plugin.with_name("another.py").write_text(STORE.replace("(SnapshotStore)", ""))
    with pytest.raises(ConfigError, match=r"store.py, line 11: GET /hello is answered already"):
        configured(tmp_path, plugins_path="plugins")
