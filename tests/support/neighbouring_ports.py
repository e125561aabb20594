"""Ports of this machine that lie side by side, as the demos take them."""

import random
import socket

# Below those that the kernel gives to connections: a demo trains before it takes its ports.
LOWEST, HIGHEST = 15_000, 30_000


def neighbouring_ports(count: int) -> int:
    """The first of so many that are free now."""
    while True:
        first = random.SystemRandom().randrange(LOWEST, HIGHEST)
        if all(_is_free(port) for port in range(first, first + count)):
            return first


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True
