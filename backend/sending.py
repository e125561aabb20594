"""Writing the buffers of a sealed message to a blocking socket."""

import socket
from collections.abc import Iterable

from torchkeep.runtime.messages import Body

MAX_BUFFERS = 64  # of one system call
FORKED = "A fork of the worker came back from the handler: it ends, as only the worker answers."


def send_all(connection: socket.socket, sealed: Iterable[Body]) -> None:
    """Raises BrokenPipeError or ConnectionResetError when the other side has gone."""
    buffers = list(sealed)
    while buffers:
        sent = connection.sendmsg(buffers[:MAX_BUFFERS])
        while buffers and sent >= len(buffers[0]):
            sent -= len(buffers.pop(0))
        if sent:
            buffers[0] = memoryview(buffers[0])[sent:]
