"""Stand-ins for servers, answering in a thread of the test."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from socketserver import BaseServer
from typing import TypeVar

Server = TypeVar("Server", bound=BaseServer)

LOOK_S = 0.02  # how soon it notices that it is to end


@contextmanager
def serving(server: Server) -> Iterator[Server]:
    """Have it answer while the block runs; at its end the server is closed."""
    thread = threading.Thread(target=server.serve_forever, args=(LOOK_S,))
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
