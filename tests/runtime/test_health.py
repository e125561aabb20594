"""One look at /ping, at each kind of address and of failure."""

import http.server
import socket
import socketserver
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from tls_identities import tls_identity

from torchkeep.runtime.address import Address
from torchkeep.runtime.health import ask_ping


class Ping(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(self.server.status if self.path == "/ping" else 404)  # type: ignore[attr-defined]
        self.end_headers()

    def address_string(self) -> str:
        return "a client"  # of a Unix socket there is none to look at

    def log_message(self, format: str, *args: object) -> None: ...


class UnixServer(socketserver.UnixStreamServer):
    def get_request(self) -> tuple[socket.socket, tuple[str, int]]:
        return self.socket.accept()[0], ("", 0)


@contextmanager
def serving(scheme: str, status: int, tmp_path: Path) -> Iterator[Address]:
    server: socketserver.BaseServer
    if scheme == "unix":
        path = str(tmp_path / "socket")
        server, address = UnixServer(path, Ping), Address("unix", path=path)
    else:
        tcp = http.server.HTTPServer(("127.0.0.1", 0), Ping)
        if scheme == "https":
            tcp.socket = tls_identity().context.wrap_socket(tcp.socket, server_side=True)
        server, address = tcp, Address(scheme, "127.0.0.1", tcp.server_port)
    server.status = status  # type: ignore[attr-defined]
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield address
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.mark.parametrize("scheme", ["http", "https", "unix"])
def test_a_server_is_asked_where_it_listens(scheme: str, tmp_path: Path) -> None:
    with serving(scheme, 200, tmp_path) as address:
        assert ask_ping(address) == (True, "Healthy")


def test_any_other_status_is_unhealthy(tmp_path: Path) -> None:
    with serving("http", 500, tmp_path) as address:
        assert ask_ping(address) == (
            False,
            f"Unhealthy: {address} answers /ping with status 500",
        )


def test_so_is_a_server_that_does_not_listen_answer_or_speak_http(tmp_path: Path) -> None:
    nobody = Address("unix", path=str(tmp_path / "nobody"))
    assert ask_ping(nobody)[0] is False
    assert "No such file" in ask_ping(nobody)[1]
    with socket.create_server(("127.0.0.1", 0)) as mute:
        address = Address("http", "127.0.0.1", mute.getsockname()[1])
        is_healthy, said = ask_ping(address, limit_s=0.05)
        assert (is_healthy, said) == (False, f"Unhealthy: no answer at {address}: timed out")
        refused = Address("https", "127.0.0.1", address.port)
        assert ask_ping(refused, limit_s=0.05)[0] is False
