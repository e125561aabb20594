"""`torchkeep health`: one look at a server's /ping, from the machine that it runs on."""

import http.client
import socket
import ssl

from torchkeep.runtime.address import Address

PING_LIMIT_S = 10.0  # for connecting, and for each part of the answer


def ask_ping(address: Address, limit_s: float = PING_LIMIT_S) -> tuple[bool, str]:
    """Whether the server there says that it is healthy, and a line about it."""
    connection = _connection(address, limit_s)
    try:
        connection.request("GET", "/ping", headers={"Host": "localhost"})
        status = connection.getresponse().status
    except (OSError, http.client.HTTPException) as error:
        return False, f"Unhealthy: no answer at {address}: {error or type(error).__name__}"
    finally:
        connection.close()
    if status == 200:
        return True, "Healthy"
    return False, f"Unhealthy: {address} answers /ping with status {status}"


def _connection(address: Address, limit_s: float) -> http.client.HTTPConnection:
    if address.is_unix:
        return _UnixConnection(address.path, limit_s)
    if address.is_tls:
        # Nothing secret is sent, and whom the certificate is made out to is the clients' affair.
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        return http.client.HTTPSConnection(
            address.host, address.port, timeout=limit_s, context=context
        )
    return http.client.HTTPConnection(address.host, address.port, timeout=limit_s)


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: str, limit_s: float) -> None:
        super().__init__("localhost", timeout=limit_s)
        self._path = path
        self._limit_s = limit_s

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self._limit_s)
        self.sock.connect(self._path)
