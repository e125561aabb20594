"""Where downloads never go, whatever `allowed_urls` says, and the way to everywhere else.

Registering a model by url makes the server ask other machines in its own name, and some answer
it alone: the broker of keys, a cloud's metadata service, this machine. A name is resolved once;
all its addresses are judged, and the connection goes to one of the very addresses that were
judged. So a name that means another machine a moment later (DNS rebinding) gains nothing.
Numbers in other clothes (0x7f.1, ::ffff:127.0.0.1) are judged by what they come to.

Private networks are not among them: that is where the stores of a cluster are.
"""

import socket
from collections.abc import Callable, Collection
from ipaddress import (
    IPv4Address,
    IPv4Network,
    IPv6Address,
    IPv6Network,
    ip_address,
    ip_network,
)
from typing import TypeAlias

from torchkeep.modelstore.errors import ModelStoreError

# Beside every container of a confidential pod: hands out keys to whoever asks on loopback.
DATA_HUB = ("127.0.0.1", 8006)

IpAddress: TypeAlias = IPv4Address | IPv6Address
Resolve: TypeAlias = Callable[[str, int], Collection[str]]  # host and port; addresses as text


class ForbiddenAddress(ModelStoreError):
    """No download goes there; the text says to what kind of address, never what was found."""


def resolve(host: str, port: int) -> list[str]:
    """The addresses of a host, in the order in which to try them. Raises OSError, ValueError."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(address[0]) for *_, address in found))


class Reach:
    """Judges and connects. `brokers` are (host, port); the data hub is always one of them."""

    def __init__(
        self,
        brokers: Collection[tuple[str, int]] = (),
        *,
        is_loopback_allowed: bool = True,
        resolve: Resolve = resolve,
    ) -> None:
        self.brokers = {(_plain_name(host), port) for host, port in (DATA_HUB, *brokers)}
        self.is_loopback_allowed = is_loopback_allowed
        self.resolve = resolve

    def connect(self, host: str, port: int, timeout_s: float | None) -> socket.socket:
        """A connection to `host`, as yet without TLS. Raises as `allowed_addresses` does."""
        failure = OSError("the host has no address")
        # All are judged before the first attempt, which would tell whether somebody listens.
        for address in self.allowed_addresses(host, port):
            try:
                return socket.create_connection((str(address), port), timeout_s)
            except OSError as error:
                failure = error
        raise failure

    def allowed_addresses(self, host: str, port: int) -> list[IpAddress]:
        """Where `host` may be reached. Raises ForbiddenAddress, OSError, ValueError."""
        self._check_name(host, port)
        addresses = self._addresses(host, port)
        for address in addresses:
            self._check_address(address, port)
        return addresses

    def _check_name(self, host: str, port: int) -> None:
        name = _plain_name(host)
        if name in _METADATA_NAMES:
            raise ForbiddenAddress("a metadata service")
        if (name, port) in self.brokers:
            raise ForbiddenAddress("the broker of keys")

    def _check_address(self, address: IpAddress, port: int) -> None:
        meant = _meant(address)
        for kind, networks in _FORBIDDEN.items():
            if any(meant in network for network in networks):
                raise ForbiddenAddress(kind)
        if self._is_broker(meant, port):
            raise ForbiddenAddress("the broker of keys")
        if not self.is_loopback_allowed and _is_this_machine(meant):
            raise ForbiddenAddress("this machine itself")

    def _is_broker(self, address: IpAddress, port: int) -> bool:
        # A broker whose name cannot be resolved now might be anywhere, so its OSError is ours.
        brokers = {
            _meant(broker)
            for host, number in self.brokers
            if number == port
            for broker in self._addresses(host, number)
        }
        if any(_is_this_machine(broker) for broker in brokers) and _is_this_machine(address):
            return True
        return address in brokers

    def _addresses(self, host: str, port: int) -> list[IpAddress]:
        # The zone of a link-local address says nothing about where it is allowed to go.
        return [ip_address(text.partition("%")[0]) for text in self.resolve(host, port)]


def _plain_name(host: str) -> str:
    return host.rstrip(".").lower()


def _meant(address: IpAddress) -> IpAddress:
    """The IPv4 address that packets to this one end at, where there is one inside."""
    if isinstance(address, IPv4Address):
        return address
    if address.sixtofour is not None:
        return address.sixtofour
    if address not in _NOT_IPV4 and any(address in network for network in _IPV4_IN_LAST_BITS):
        return IPv4Address(int(address) & 0xFFFFFFFF)
    return address


def _is_this_machine(address: IpAddress) -> bool:
    """Whether packets to this address never leave: the kernel would send them from it, too."""
    if any(address in network for network in _LOOPBACK):
        return True
    family = socket.AF_INET if isinstance(address, IPv4Address) else socket.AF_INET6
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as unsent:  # connecting it sends nothing
            unsent.connect((str(address), 1))
            return ip_address(unsent.getsockname()[0].partition("%")[0]) == address
    except OSError:
        return False  # no way there, for a connection neither


def _networks(*texts: str) -> tuple[IPv4Network | IPv6Network, ...]:
    return tuple(ip_network(text) for text in texts)


_LOOPBACK = _networks("127.0.0.0/8", "::1/128")
_NOT_IPV4 = {IPv6Address("::"), IPv6Address("::1")}
_IPV4_IN_LAST_BITS = _networks(
    "::/96",  # IPv4-compatible
    "::ffff:0:0/96",  # IPv4-mapped
    "::ffff:0:0:0/96",  # IPv4-translated
    "64:ff9b::/96",  # NAT64
)
_METADATA_NAMES = {"metadata.google.internal", "metadata.goog"}
_FORBIDDEN = {  # the first that fits is named
    "a metadata service": _networks(
        "169.254.169.254/32",  # nearly everywhere
        "100.100.100.200/32",  # Alibaba
        "168.63.129.16/32",  # Azure's host
        "192.0.0.192/32",  # Oracle
        "fd00:ec2::/32",  # AWS: all its services for instances
        "fd20:ce::254/128",  # Google
    ),
    "no particular machine": _networks("0.0.0.0/8", "::/128"),
    "a link-local address": _networks("169.254.0.0/16", "fe80::/10"),
    "many machines at once": _networks("224.0.0.0/4", "255.255.255.255/32", "ff00::/8"),
    # NAT64 of a site, whose layout only the site knows; Teredo
    "an address inside another": _networks("64:ff9b:1::/48", "2001::/32"),
}
