"""What the roof makes of the configuration."""

from pathlib import Path

import pytest

from torchkeep.runtime import __main__ as roof
from torchkeep.runtime.address import Address
from torchkeep.runtime.config import Config
from torchkeep.runtime.errors import ConfigError


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
