"""Where other machines reach this one."""

import socket


def own_address() -> str | None:
    """An address of this machine that is not loopback."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as unsent:
        try:
            unsent.connect(("192.0.2.1", 1))
        except OSError:
            return None
        address: str = unsent.getsockname()[0]
        return None if address.startswith("127.") else address
