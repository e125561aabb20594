"""TLS as this server speaks it, whatever its certificate was made of.

Python's `ssl` takes a certificate and its key from files only. These files have no disk behind
them, and the key in it is encrypted for the moment: memory may be swapped out.
"""

import datetime
import ipaddress
import os
import secrets
import ssl
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
)
from cryptography.x509.oid import NameOID

# Forward secrecy and authenticated encryption, nothing else; TLS 1.3 has only such.
CIPHERS = "ECDHE+AESGCM:ECDHE+CHACHA20"

_SELF_SIGNED_LIFE = datetime.timedelta(days=365)


def server_context(chain_pem: bytes, key: PrivateKeyTypes) -> ssl.SSLContext:
    """A listener's side of TLS, for a chain that begins with the certificate of this key.

    Raises ssl.SSLError for what OpenSSL refuses: a key that is too short, or not this one's.
    """
    # Not `create_default_context`, which writes the keys of sessions where SSLKEYLOGFILE says.
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers(CIPHERS)
    context.set_alpn_protocols(["http/1.1"])
    # Tickets would let one key of the server open sessions that are long over.
    context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_COMPRESSION | ssl.OP_NO_TICKET
    context.num_tickets = 0
    use_identity(context, chain_pem, key)
    return context


def use_identity(context: ssl.SSLContext, chain_pem: bytes, key: PrivateKeyTypes) -> None:
    """From here on, new connections are shown this chain. Raises ssl.SSLError."""
    password = secrets.token_hex(32)
    encryption = BestAvailableEncryption(password.encode())
    key_pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption)
    with _in_memory(chain_pem + b"\n" + key_pem) as path:
        context.load_cert_chain(path, password=password)


def self_signed(hosts: Sequence[str]) -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
    """A certificate that nobody vouches for, and its key: born here, gone with this process."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Torchkeep")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(minutes=5))  # clocks differ
        .not_valid_after(now + _SELF_SIGNED_LIFE)
        .add_extension(x509.SubjectAlternativeName(list(map(_general_name, hosts))), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    return certificate, key


def _general_name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


@contextmanager
def _in_memory(content: bytes) -> Iterator[str]:
    """A path to a file that no other process sees."""
    descriptor = os.memfd_create("tls", os.MFD_CLOEXEC)
    try:
        with open(descriptor, "wb", closefd=False) as file:
            file.write(content)
        yield f"/proc/self/fd/{descriptor}"
    finally:
        os.close(descriptor)
