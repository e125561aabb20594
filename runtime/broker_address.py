"""Where the broker that `key_source` names listens, so that nothing else of ours goes there."""

from urllib.parse import urlsplit

from torchkeep.runtime.errors import ConfigError

SOURCES = ("cdh:", "kbs:")
PORTS = {"http": 80, "https": 443}


def broker_addresses(key_source: str | None) -> set[tuple[str, int]]:
    """Host and port of the broker; none for a key in a file. Raises ConfigError."""
    if key_source is None or not key_source.startswith(SOURCES):
        return set()
    _, _, url = key_source.partition(":")
    try:
        parts = urlsplit(url)
        port = parts.port or PORTS[parts.scheme]
    except (ValueError, KeyError):
        port = 0
    if not port or not parts.hostname:
        raise ConfigError(
            f"key_source={key_source}: expected an address after {key_source[:4]}, "
            "such as https://host:port"
        )
    return {(parts.hostname, port)}
