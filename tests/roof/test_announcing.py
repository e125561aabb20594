"""What a start warns of."""

import socket

import pytest

from torchkeep.roof import announcing
from torchkeep.runtime.address import parse_address
from torchkeep.runtime.config import Config


def exposure(management: str, **settings: object) -> str:
    """What is said of a management API without keys at this address."""
    settings = {"disable_token_authorization": True, **settings}
    address = parse_address(management, 8081, 8444)
    return " ".join(announcing.exposure(Config(management_address=address, **settings)))


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
        "Your torchserve instance can access any URL" in text for text in announcing.any_url(config)
    ]
    assert warned == ([True] if is_warned else [])
