"""The certificate of the https listeners."""

from pathlib import Path

import pytest

from torchkeep.roof.listener_tls import tls_of_listeners
from torchkeep.runtime.address import Address
from torchkeep.runtime.config import Config
from torchkeep.runtime.errors import ConfigError

HTTPS = Address("https", "127.0.0.1", 8443)


def test_without_https_no_key_is_looked_for() -> None:
    assert tls_of_listeners(Config(keystore=Path("/nowhere"))) is None
    unused = Config(metrics_address=HTTPS, enable_metrics_api=False, keystore=Path("/nowhere"))
    assert tls_of_listeners(unused) is None


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
        tls_of_listeners(config)


def test_https_without_any_key_makes_its_own_and_says_so() -> None:
    config = Config(inference_address=HTTPS)
    assert tls_of_listeners(config) is not None
    (warning,) = config.warnings
    assert "neither keystore nor private_key_file and certificate_file are set" in warning
