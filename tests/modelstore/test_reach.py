"""Which addresses a download may connect to, and that it connects to no other."""

import socket
from collections.abc import Iterator
from ipaddress import ip_address

import pytest
from own_address import own_address

from torchkeep.modelstore.reach import ForbiddenAddress, Reach, resolve

METADATA = "a metadata service"
NOBODY = "no particular machine"
LINK_LOCAL = "a link-local address"
MANY = "many machines at once"
HIDDEN = "an address inside another"
BROKER = "the broker of keys"
OURS = "this machine itself"


class Names:
    """A resolver of fixed names that gives the next answer each time; numbers mean themselves."""

    def __init__(self, **answers: list[list[str]]) -> None:
        self.answers = {name.replace("_", "."): given for name, given in answers.items()}
        self.asked: list[str] = []

    def __call__(self, host: str, port: int) -> list[str]:
        self.asked.append(host)
        if host not in self.answers:
            return resolve(host, port)
        given = self.answers[host]
        return given.pop(0) if len(given) > 1 else given[0]


class Listening:
    """A socket that notices whether anybody tried to connect."""

    def __init__(self, address: str) -> None:
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        self.socket = socket.create_server((address, 0), family=family)
        self.socket.setblocking(False)
        self.port: int = self.socket.getsockname()[1]

    def was_reached(self) -> bool:
        try:
            connection, _ = self.socket.accept()
        except BlockingIOError:
            return False
        connection.close()
        return True


@pytest.fixture(params=["127.0.0.1", "127.0.0.2", "::1"])
def listening(request: pytest.FixtureRequest) -> Iterator[Listening]:
    try:
        listening = Listening(request.param)
    except OSError:
        pytest.skip(f"this machine has no {request.param}")
    yield listening
    listening.socket.close()


@pytest.fixture
def server() -> Iterator[Listening]:
    server = Listening("127.0.0.1")
    yield server
    server.socket.close()


def refusal(reach: Reach, host: str, port: int = 80) -> str:
    with pytest.raises(ForbiddenAddress) as caught:
        reach.connect(host, port, 1)
    return str(caught.value)


FORBIDDEN = {
    "169.254.169.254": METADATA,
    "100.100.100.200": METADATA,
    "168.63.129.16": METADATA,
    "192.0.0.192": METADATA,
    "fd00:ec2::254": METADATA,
    "fd00:ec2::23": METADATA,
    "fd20:ce::254": METADATA,
    "metadata.google.internal": METADATA,
    "Metadata.Google.Internal.": METADATA,
    "0.0.0.0": NOBODY,
    "0.1.2.3": NOBODY,
    "::": NOBODY,
    "169.254.0.1": LINK_LOCAL,
    "169.254.255.255": LINK_LOCAL,
    "fe80::1": LINK_LOCAL,
    "fe80::1%lo": LINK_LOCAL,
    "febf::1": LINK_LOCAL,
    "224.0.0.1": MANY,
    "239.255.255.255": MANY,
    "255.255.255.255": MANY,
    "ff02::1": MANY,
    # the same in other clothes
    "2852039166": METADATA,
    "0xa9fea9fe": METADATA,
    "0xA9.0xFE.0xA9.0xFE": METADATA,
    "0251.0376.0251.0376": METADATA,
    "169.254.43518": METADATA,
    "169。254。169。254": METADATA,
    "0": NOBODY,
    "0x0": NOBODY,
    # IPv4 in IPv6: mapped, compatible, translated, NAT64, 6to4
    "::ffff:169.254.169.254": METADATA,
    "::ffff:a9fe:a9fe": METADATA,
    "0:0:0:0:0:ffff:a9fe:a9fe": METADATA,
    "::169.254.169.254": METADATA,
    "::ffff:0:169.254.169.254": METADATA,
    "64:ff9b::169.254.169.254": METADATA,
    "64:ff9b::a9fe:1": LINK_LOCAL,
    "2002:a9fe:a9fe::1": METADATA,
    "::ffff:0.0.0.0": NOBODY,
    "::ffff:224.0.0.1": MANY,
    "64:ff9b:1::10.0.0.1": HIDDEN,
    "2001:0:1:2:3:4:5:6": HIDDEN,
}


@pytest.mark.parametrize("host", FORBIDDEN)
def test_forbidden_whatever_is_configured(host: str) -> None:
    assert refusal(Reach(), host) == FORBIDDEN[host]


@pytest.mark.parametrize("host", [host for host in FORBIDDEN if "oogle" not in host])
def test_a_name_of_a_forbidden_address(host: str) -> None:
    names = Names(store_example=[resolve(host, 80)])
    assert refusal(Reach(resolve=names), "store.example") == FORBIDDEN[host]
    assert names.asked.count("store.example") == 1


@pytest.mark.parametrize(
    "host",
    [
        "10.0.0.1",
        "172.16.0.1",
        "192.168.1.1",
        "100.64.0.1",
        "169.253.255.255",
        "169.255.0.0",
        "168.63.129.17",
        "1.0.0.0",
        "223.255.255.255",
        "fd00:ec3::254",
        "fec0::1",
        "2001:db8::1",
        "2000::1",
        "64:ff9b::10.0.0.1",
        "2002:a00:1::1",
        "::ffff:10.0.0.1",
    ],
)
def test_private_and_public_addresses_are_allowed(host: str) -> None:
    assert Reach().allowed_addresses(host, 80) == [ip_address(host)]


def test_other_machines_are_allowed_where_this_one_is_not() -> None:
    host = "203.0.113.1"  # kept for examples, so nobody's
    assert Reach(is_loopback_allowed=False).allowed_addresses(host, 80) == [ip_address(host)]


# -- loopback --------------------------------------------------------------------------------


def test_loopback_is_reached_by_default(listening: Listening) -> None:
    Reach().connect(listening.socket.getsockname()[0], listening.port, 1).close()
    assert listening.was_reached()


def test_loopback_can_be_forbidden(listening: Listening) -> None:
    reach = Reach(is_loopback_allowed=False)
    assert refusal(reach, listening.socket.getsockname()[0], listening.port) == OURS
    assert not listening.was_reached()


@pytest.mark.parametrize(
    "host",
    [
        "localhost",
        "127.1",
        "2130706433",
        "0x7f000001",
        "0177.0.0.1",
        "127.255.255.254",
        "::ffff:127.0.0.1",
        "::127.0.0.1",
        "64:ff9b::127.0.0.1",
        "2002:7f00:1::1",
    ],
)
def test_loopback_in_other_clothes(server: Listening, host: str) -> None:
    assert refusal(Reach(is_loopback_allowed=False), host, server.port) == OURS
    assert not server.was_reached()


def test_an_address_of_this_machine_is_loopback_too() -> None:
    address = own_address()
    if address is None:
        pytest.skip("this machine has no address but loopback")
    own = Listening(address)
    try:
        assert refusal(Reach(is_loopback_allowed=False), address, own.port) == OURS
        assert not own.was_reached()
        Reach().connect(address, own.port, 1).close()
        assert own.was_reached()
    finally:
        own.socket.close()


# -- the broker ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "host",
    ["127.0.0.1", "localhost", "127.0.0.2", "::1", "::ffff:127.0.0.1", "0x7f.1", "2130706433"],
)
def test_the_data_hub_is_a_broker_always(host: str) -> None:
    assert refusal(Reach(), host, 8006) == BROKER


def test_a_broker_of_this_machine_has_all_its_addresses(server: Listening) -> None:
    reach = Reach([("localhost", server.port)])
    hosts = ["localhost", "LOCALHOST.", "127.0.0.1", "127.0.0.2", "::1", own_address() or "::1"]
    for host in hosts:
        assert refusal(reach, host, server.port) == BROKER
    assert not server.was_reached()


def test_another_port_of_the_brokers_machine_is_allowed(server: Listening) -> None:
    Reach([("127.0.0.1", server.port + 1)]).connect("127.0.0.1", server.port, 1).close()
    assert server.was_reached()


def test_a_broker_by_its_name_and_by_another() -> None:
    names = Names(broker_example=[["10.0.0.1", "10.0.0.2"]], alias_example=[["10.0.0.2"]])
    reach = Reach([("Broker.example", 443)], resolve=names)
    assert refusal(reach, "BROKER.example.", 443) == BROKER
    assert names.asked == []
    assert refusal(reach, "alias.example", 443) == BROKER
    assert refusal(reach, "::ffff:10.0.0.1", 443) == BROKER


def test_a_broker_that_cannot_be_resolved_might_be_anywhere(server: Listening) -> None:
    def no_broker(host: str, port: int) -> list[str]:
        if host == "broker.example":
            raise socket.gaierror("not known")
        return resolve(host, port)

    reach = Reach([("broker.example", server.port)], resolve=no_broker)
    with pytest.raises(socket.gaierror):
        reach.connect("127.0.0.1", server.port, 1)
    assert not server.was_reached()


# -- names -----------------------------------------------------------------------------------


def test_a_name_is_resolved_once_and_reached_at_the_address_that_was_judged(
    server: Listening,
) -> None:
    """DNS rebinding: an innocent answer for the check, another for the connection."""
    names = Names(rebinding_example=[["127.0.0.1"], ["169.254.169.254"]])
    connection = Reach(resolve=names).connect("rebinding.example", server.port, 1)
    with connection:
        assert connection.getpeername() == ("127.0.0.1", server.port)
    assert server.was_reached()
    assert names.asked == ["rebinding.example"]


def test_each_connection_is_judged_anew(server: Listening) -> None:
    names = Names(rebinding_example=[["127.0.0.1"], ["169.254.169.254"]])
    reach = Reach(resolve=names)
    reach.connect("rebinding.example", server.port, 1).close()
    assert server.was_reached()
    assert refusal(reach, "rebinding.example", server.port) == METADATA


def test_one_forbidden_address_of_several_forbids_the_name(server: Listening) -> None:
    for addresses in (["127.0.0.1", "169.254.0.1"], ["fe80::1", "127.0.0.1"]):
        names = Names(mixed_example=[addresses])
        assert refusal(Reach(resolve=names), "mixed.example", server.port) == LINK_LOCAL
    assert not server.was_reached()


def test_the_addresses_are_tried_in_turn(server: Listening) -> None:
    names = Names(two_example=[["127.0.0.2", "127.0.0.1"]])
    with Reach(resolve=names).connect("two.example", server.port, 1) as connection:
        assert connection.getpeername() == ("127.0.0.1", server.port)


def test_a_name_without_addresses() -> None:
    with pytest.raises(OSError, match="no address"):
        Reach(resolve=Names(none_example=[[]])).connect("none.example", 80, 1)
