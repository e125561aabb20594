"""What the roof makes of the configuration."""

import os
import socket
from pathlib import Path
from typing import Any

import pytest

from torchkeep.runtime import __main__ as roof
from torchkeep.runtime.address import Address, parse_address
from torchkeep.runtime.command_line import Flags
from torchkeep.runtime.config import Config
from torchkeep.runtime.errors import ConfigError
from torchkeep.runtime.plugin_loading import Plugins


@pytest.mark.parametrize(
    ("config", "level"),
    [
        (Config(), ""),
        (Config(key_source="file:/key"), ""),
        (Config(key_source="cdh:http://127.0.0.1:8006"), "strict"),
        (Config(key_source="kbs:https://host"), "strict"),
        (Config(insecure_simulated_tee=True), "strict"),
        (Config(insecure_simulated_tee=True, sandbox="standard"), "standard"),
    ],
)
def test_where_keys_or_a_tee_are_configured_every_model_is_strict(
    config: Config, level: str
) -> None:
    assert roof._sandbox_policy(config).level == level


def exposure(management: str, **settings: object) -> str:
    """What is said of a management API without keys at this address."""
    settings = {"disable_token_authorization": True, **settings}
    address = parse_address(management, 8081, 8444)
    return " ".join(roof._exposure(Config(management_address=address, **settings)))


REACHABLE = [
    *("http://0.0.0.0:8081", "https://0.0.0.0:8444", "http://0.0.0.0", "http://10.1.2.3:8081"),
    *("http://169.254.1.1:8081", "http://127.0.0.1.example.org", f"http://{socket.gethostname()}"),
    *("http://models.example.org:8081", "http://0", "http://2130706433"),
]


@pytest.mark.parametrize("address", REACHABLE)
def test_management_without_keys_that_others_reach_is_warned_of(address: str) -> None:
    warning = exposure(address)
    assert warning.startswith(
        f"ANYBODY who can reach the management API at {parse_address(address, 8081, 8444)} can "
        "scale your models down to nothing: it is open to other machines and asks for no key."
    )
    assert "a model is code that runs here" in exposure(address, enable_model_api=True)
    assert exposure(address, disable_token_authorization=False) == ""
    shared = parse_address(address, 8081, 8444)
    assert exposure(address, inference_address=shared) == warning


@pytest.mark.parametrize(
    "address", ["http://127.0.0.1", "https://127.9.9.9:1", "http://localhost:8081", "unix:/a/b"]
)
def test_management_that_only_this_machine_reaches_is_not(address: str) -> None:
    assert exposure(address, enable_model_api=True) == ""


def test_predictions_and_metrics_may_be_open_to_everybody() -> None:
    everywhere = parse_address("http://0.0.0.0:80", 80, 443)
    assert (
        exposure("http://127.0.0.1", inference_address=everywhere, metrics_address=everywhere) == ""
    )


@pytest.mark.parametrize("address", ["http://[::]:8081", "http://[::1]:8081", "http://:::8081"])
def test_no_listener_has_a_literal_address_of_ipv6(address: str) -> None:
    """As in TorchServe: hence none that is open to all by a spelling nobody looked at."""
    with pytest.raises(ValueError, match="Invalid binding address"):
        parse_address(address, 8081, 8444)


@pytest.mark.parametrize(
    ("config", "is_warned"),
    [
        (Config(enable_model_api=True), True),
        (Config(), False),
        (Config(enable_model_api=True, allowed_urls=["https://models.example.org/.*"]), False),
        (Config(enable_model_api=True, given={"allowed_urls": "file://.*|http(s)?://.*"}), False),
    ],
)
def test_that_registering_may_ask_every_machine_is_warned_of(
    config: Config, is_warned: bool
) -> None:
    warned = [
        "Your torchserve instance can access any URL" in text for text in roof._any_url(config)
    ]
    assert warned == ([True] if is_warned else [])


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
    return roof._configuration(Flags(**flags), {}, cwd)


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


# TLS

HTTPS = Address("https", "127.0.0.1", 8443)


def test_without_https_no_key_is_looked_for() -> None:
    assert roof._tls(Config(keystore=Path("/nowhere"))) is None
    unused = Config(metrics_address=HTTPS, enable_metrics_api=False, keystore=Path("/nowhere"))
    assert roof._tls(unused) is None


@pytest.mark.parametrize(
    "config",
    [
        Config(inference_address=HTTPS, keystore=Path("/nowhere")),
        Config(management_address=HTTPS, keystore=Path("/nowhere")),
        Config(metrics_address=HTTPS, keystore=Path("/nowhere"), private_key_file=Path("/x")),
    ],
)
def test_a_keystore_comes_before_pem_files(config: Config) -> None:
    with pytest.raises(ConfigError, match="keystore: /nowhere: No such file"):
        roof._tls(config)


def test_https_without_any_key_makes_its_own_and_says_so() -> None:
    config = Config(inference_address=HTTPS)
    assert roof._tls(config) is not None
    (warning,) = config.warnings
    assert "neither keystore nor private_key_file and certificate_file are set" in warning


def test_ts_path_is_the_folder_of_ts(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        roof.torchkeep(["ts-path"])
    assert caught.value.code == 0
    folder = Path(capsys.readouterr().out.removesuffix("\n"))
    assert (folder / "ts/py.typed").is_file()
