"""TLS that ends at one key, whoever signed its certificate: the key that was attested.

The key is compared at the end of the handshake, inside it, so a connection to any other key is
over before its caller has it. TLS itself proves that the peer holds the key.
"""

import ssl
from typing import Any

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from torchkeep.client.errors import KeyChanged


def unpinned_context() -> ssl.SSLContext:
    """For the connection on which a server is asked who it is: nothing else may be sent there."""
    return _without_authorities(ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT))


def pinned_context(public_key: bytes) -> ssl.SSLContext:
    """Handshakes with any key but this one (SubjectPublicKeyInfo) raise KeyChanged."""
    context = _PinnedContext(ssl.PROTOCOL_TLS_CLIENT)
    context.public_key = public_key
    return _without_authorities(context)


def key_of(certificate: bytes) -> bytes:
    """The SubjectPublicKeyInfo in a certificate (DER). Raises ValueError."""
    try:
        public_key = x509.load_der_x509_certificate(certificate).public_key()
    except (TypeError, UnsupportedAlgorithm) as error:
        raise ValueError("the certificate holds no key that is known here") from error
    return public_key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def _without_authorities(context: ssl.SSLContext) -> ssl.SSLContext:
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    return context


class _PinnedSocket(ssl.SSLSocket):
    def do_handshake(self, block: bool = False) -> None:
        super().do_handshake(block)
        try:
            _check_peer(self)
        except KeyChanged:
            self.close()
            raise


class _PinnedObject(ssl.SSLObject):
    """The same for asyncio, whose own layer closes the connection."""

    def do_handshake(self) -> None:
        super().do_handshake()
        _check_peer(self)


class _PinnedContext(ssl.SSLContext):
    public_key = b""
    sslsocket_class: Any = _PinnedSocket
    sslobject_class: Any = _PinnedObject


def _check_peer(peer: _PinnedSocket | _PinnedObject) -> None:
    context = peer.context
    assert isinstance(context, _PinnedContext), "it makes no other connections"
    try:
        found = key_of(peer.getpeercert(binary_form=True) or b"")
    except ValueError:
        found = b""
    if not found or found != context.public_key:
        raise KeyChanged(
            "A new connection ended at another key than the attested one, and was closed. Either "
            "the server was replaced, or somebody is in between, or several servers share this "
            "address: give each a URL of its own"
        )
