"""From `key_source` to the host and port that downloads keep away from."""

import pytest

from torchkeep.runtime.broker_address import broker_addresses
from torchkeep.runtime.errors import ConfigError


@pytest.mark.parametrize(
    ("key_source", "expected"),
    [
        (None, set()),
        ("file:/etc/key", set()),
        ("cdh:http://127.0.0.1:8006", {("127.0.0.1", 8006)}),
        ("kbs:https://Broker.example", {("broker.example", 443)}),
        ("kbs:http://broker.example/base", {("broker.example", 80)}),
        ("kbs:https://[fd00::1]:8443", {("fd00::1", 8443)}),
    ],
)
def test_the_broker_of_a_key_source(key_source: str, expected: set[tuple[str, int]]) -> None:
    assert broker_addresses(key_source) == expected


@pytest.mark.parametrize("url", ["", "broker", "ftp://broker", "https://", "https://broker:x"])
def test_a_broker_without_an_address_stops_the_start(url: str) -> None:
    with pytest.raises(ConfigError, match=r"key_source=kbs:.*expected an address after kbs:"):
        broker_addresses(f"kbs:{url}")
