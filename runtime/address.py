"""Where a listener binds, as config.properties spells it."""

import re
from dataclasses import dataclass
from ipaddress import AddressValueError, IPv4Address

# TorchServe: no slash after the port, no blank around it, no IPv6 literal.
_TCP = re.compile(r"(https?)://([^:/\s]+)(?::(\d+))?", re.ASCII)
_UNIX = re.compile(r"unix:(/.+)")

MAX_PORT = 65535


@dataclass(frozen=True, slots=True)
class Address:
    """`http://host:port`, `https://host:port` or `unix:/path`. Equal ones share a listener."""

    scheme: str
    host: str = ""
    port: int = 0
    path: str = ""

    @property
    def is_tls(self) -> bool:
        return self.scheme == "https"

    @property
    def is_unix(self) -> bool:
        return self.scheme == "unix"

    @property
    def is_local(self) -> bool:
        """Whether only this machine can reach it; a name but `localhost` may be anything."""
        if self.is_unix or self.host.lower() == "localhost":
            return True
        try:
            return IPv4Address(self.host).is_loopback
        except AddressValueError:
            return False

    def __str__(self) -> str:
        return f"unix:{self.path}" if self.is_unix else f"{self.scheme}://{self.host}:{self.port}"


def parse_address(text: str, http_port: int, https_port: int) -> Address:
    """The ports stand in where the text names none. Raises ValueError in TorchServe's words."""
    if match := _UNIX.fullmatch(text):
        return Address("unix", path=match[1])
    if not (match := _TCP.fullmatch(text)):
        raise ValueError(f"Invalid binding address: {text}")
    scheme, host, digits = match.groups()
    if digits is None:
        return Address(scheme, host, https_port if scheme == "https" else http_port)
    # Counted first: int() itself refuses thousands of digits, in words of its own.
    if len(digits) > len(str(MAX_PORT)) or int(digits) > MAX_PORT:
        raise ValueError(f"Invalid port number: {text}")
    return Address(scheme, host, int(digits))
