"""A certificate for 127.0.0.1, both sides of TLS made of it."""

import ssl
from dataclasses import dataclass
from functools import cache

from cryptography.hazmat.primitives.serialization import Encoding

from torchkeep.runtime.tls import self_signed, server_context


@dataclass(frozen=True)
class TlsIdentity:
    context: ssl.SSLContext  # the server's
    trusting: ssl.SSLContext  # a client's


@cache
def tls_identity() -> TlsIdentity:
    certificate, key = self_signed(["localhost", "127.0.0.1"])
    pem = certificate.public_bytes(Encoding.PEM)
    return TlsIdentity(server_context(pem, key), ssl.create_default_context(cadata=pem.decode()))
