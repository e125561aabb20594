"""What workers start with."""

import pytest

from torchkeep.roof.workers import configured_sandbox
from torchkeep.runtime.config import Config


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
    assert configured_sandbox(config).level == level
