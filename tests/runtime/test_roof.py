"""What the roof makes of the configuration."""

import pytest

from torchkeep.runtime import __main__ as roof
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
    assert roof._sandbox_policy(config).level == level


@pytest.mark.parametrize(
    ("config", "is_warned"),
    [
        (Config(enable_model_api=True), True),
        (Config(enable_model_api=False), False),
        (Config(enable_model_api=True, allowed_urls=["https://models/.*"]), False),
        (Config(enable_model_api=True, given={"allowed_urls": "file://.*|http(s)?://.*"}), False),
    ],
)
def test_allowed_urls_that_are_not_set_are_warned_of(config: Config, is_warned: bool) -> None:
    assert bool(roof._open_urls(config)) is is_warned
