"""Binding addresses, and TorchServe's words for those it cannot use."""

import pytest

from torchkeep.runtime.address import Address, parse_address


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("http://127.0.0.1:8080", Address("http", "127.0.0.1", 8080)),
        ("https://0.0.0.0", Address("https", "0.0.0.0", 8444)),
        ("http://localhost", Address("http", "localhost", 8081)),
        ("http://h:0", Address("http", "h", 0)),
        ("http://h:65535", Address("http", "h", 65535)),
        ("unix:/tmp/a b", Address("unix", path="/tmp/a b")),
    ],
)
def test_addresses(text: str, expected: Address) -> None:
    assert parse_address(text, 8081, 8444) == expected


@pytest.mark.parametrize("text", ["http://127.0.0.1:8080", "https://h:1", "unix:/tmp/a"])
def test_an_address_is_written_as_it_was_read(text: str) -> None:
    assert str(parse_address(text, 1, 2)) == text


@pytest.mark.parametrize(
    "text",
    [
        "",
        "127.0.0.1:8080",
        "ftp://x",
        "http://h:abc",
        "http://h:1/",
        "http://[::1]:1",
        " http://h:1",
        "http://h:1 ",
        "unix:",
        "unix:rel",
    ],
)
def test_what_torchserve_calls_an_invalid_binding_address(text: str) -> None:
    with pytest.raises(ValueError, match="Invalid binding address: ") as caught:
        parse_address(text, 1, 2)
    assert str(caught.value) == f"Invalid binding address: {text}"


@pytest.mark.parametrize("port", ["65536", "99999", "9" * 5000])
def test_a_port_too_large(port: str) -> None:
    with pytest.raises(ValueError, match=f"^Invalid port number: http://h:{port}$"):
        parse_address(f"http://h:{port}", 1, 2)


def test_what_a_listener_asks_of_an_address() -> None:
    assert parse_address("https://h", 1, 2).is_tls
    assert not parse_address("http://h", 1, 2).is_tls
    assert parse_address("unix:/a", 1, 2).is_unix


@pytest.mark.parametrize(
    "text", ["http://127.0.0.1", "http://127.9.9.9", "https://LOCALHOST", "unix:/a"]
)
def test_addresses_that_only_this_machine_reaches(text: str) -> None:
    assert parse_address(text, 1, 2).is_local


@pytest.mark.parametrize(
    "text", ["http://0.0.0.0", "http://10.0.0.1", "http://h", "http://127.0.0.1.example.org"]
)
def test_addresses_that_others_may_reach(text: str) -> None:
    assert not parse_address(text, 1, 2).is_local
