"""What can go wrong on the ground both processes share."""


class ServingError(Exception):
    """The root of every error that Torchkeep raises on purpose."""


class ConfigError(ServingError):
    """The configuration cannot be used. The message names file, line, key and what was expected."""


class WireError(ServingError):
    """The peer sent a frame we cannot trust. The connection is over."""


class MessageError(ServingError):
    """A frame opened, but what it holds is no message of ours."""
