"""Certificates and keys where TorchServe's users have them: PEM files, or a Java keystore.

Whatever is wrong with them is one `ConfigError` at the start, which names key and file.
"""

import datetime
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes
from cryptography.hazmat.primitives.serialization import Encoding, load_pem_private_key, pkcs12

from torchkeep.runtime.errors import ConfigError

ServerKey: TypeAlias = (
    rsa.RSAPrivateKey
    | ec.EllipticCurvePrivateKey
    | ed25519.Ed25519PrivateKey
    | ed448.Ed448PrivateKey
)

_JAVA_ONLY = {b"\xfe\xed\xfe\xed": "JKS", b"\xce\xce\xce\xce": "JCEKS"}
_SEQUENCE = b"\x30"  # the first byte of every PKCS12 file


@dataclass(frozen=True, slots=True)
class Identity:
    """What a server shows to its clients, and the key that proves it is its own."""

    chain: Sequence[x509.Certificate]  # the server's own first, each signed by the next
    key: ServerKey
    origin: str  # keys and files of the configuration, for messages

    @property
    def chain_pem(self) -> bytes:
        return b"".join(certificate.public_bytes(Encoding.PEM) for certificate in self.chain)

    def warnings(self, now: datetime.datetime) -> list[str]:
        """What clients will object to, though it can be served."""
        return [
            f"{self.origin}: the certificate of {certificate.subject.rfc4514_string() or 'nobody'}"
            f" {problem}: clients will refuse it. Renew it and start again"
            for certificate in self.chain
            if (problem := _problem(certificate, now))
        ]


def read_pem(private_key_file: Path | None, certificate_file: Path | None) -> Identity:
    """The identity that the two files hold; one without the other is a mistake."""
    if private_key_file is None:
        raise ConfigError(f"certificate_file={certificate_file} needs private_key_file, too")
    if certificate_file is None:
        raise ConfigError(f"private_key_file={private_key_file} needs certificate_file, too")
    key = _read_key(private_key_file)
    content = _read("certificate_file", certificate_file)
    try:
        chain = x509.load_pem_x509_certificates(content)
    except ValueError as error:
        raise ConfigError(
            f"certificate_file: {certificate_file} holds no certificates that can be read: expected"
            " PEM (-----BEGIN CERTIFICATE-----), the server's own first"
        ) from error
    origin = f"private_key_file={private_key_file}, certificate_file={certificate_file}"
    return _fitting(chain, key, origin)


def read_keystore(keystore: Path, password: str, keystore_type: str) -> Identity:
    """The identity of the first private key in a PKCS12 file."""
    content = _read("keystore", keystore)
    # Java reads a PKCS12 file as type JKS, too: what counts is what the file is.
    if (java_only := _JAVA_ONLY.get(content[:4])) is not None:
        raise ConfigError(
            f"keystore: {keystore} is of type {java_only}, which only Java reads. Convert it: "
            f"keytool -importkeystore -srckeystore {keystore} -srcstoretype {java_only} "
            f"-destkeystore {keystore.with_suffix('.p12')} -deststoretype PKCS12, then set keystore"
            " to the new file and keystore_type=PKCS12"
        )
    if not content.startswith(_SEQUENCE):
        raise ConfigError(
            f"keystore: {keystore} is no keystore: expected a PKCS12 file "
            f"(keystore_type={keystore_type}); for PEM set private_key_file and certificate_file"
        )
    try:
        key, certificate, others = pkcs12.load_key_and_certificates(content, password.encode())
    except (ValueError, UnsupportedAlgorithm) as error:
        raise ConfigError(
            f"keystore: {keystore} cannot be opened: keystore_pass is not its password, or the file"
            f" is damaged or encrypted in a way that is no longer in use ({error})"
        ) from error
    if key is None or certificate is None:
        raise ConfigError(f"keystore: {keystore} holds no private key with a certificate")
    origin = f"keystore={keystore}"
    return _fitting(_in_order(certificate, others), _server_key(key, origin), origin)


def _read_key(path: Path) -> ServerKey:
    content = _read("private_key_file", path)
    try:
        key = load_pem_private_key(content, password=None)
    except TypeError as error:
        raise ConfigError(
            f"private_key_file: {path} is encrypted, and there is no key for its password: expected"
            " PEM without one (openssl pkey -in FILE -out PLAIN), or use keystore"
        ) from error
    except (ValueError, UnsupportedAlgorithm) as error:
        raise ConfigError(
            f"private_key_file: {path} holds no private key that can be read: expected PEM, PKCS#8 "
            "(-----BEGIN PRIVATE KEY-----) or OpenSSL's (-----BEGIN RSA PRIVATE KEY-----)"
        ) from error
    return _server_key(key, f"private_key_file: {path}")


def _server_key(key: PrivateKeyTypes, origin: str) -> ServerKey:
    if isinstance(key, ServerKey):
        return key
    raise ConfigError(f"{origin}: {type(key).__name__} is no key for TLS: expected RSA or EC")


def _read(name: str, path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ConfigError(f"{name}: {path}: {error.strerror}") from error


def _fitting(chain: Sequence[x509.Certificate], key: ServerKey, origin: str) -> Identity:
    if key.public_key() != chain[0].public_key():
        raise ConfigError(
            f"{origin}: the private key is not that of the first certificate: expected the server's"
            " own certificate first, and the key that it was made for"
        )
    return Identity(chain, key, origin)


def _in_order(
    certificate: x509.Certificate, others: Sequence[x509.Certificate]
) -> list[x509.Certificate]:
    """Each signed by the next, as TLS 1.2 wants it; a keystore has them in any order."""
    chain, left = [certificate], list(others)
    while issuer := next((one for one in left if one.subject == chain[-1].issuer), None):
        chain.append(issuer)
        left.remove(issuer)
    return chain


def _problem(certificate: x509.Certificate, now: datetime.datetime) -> str | None:
    if now > certificate.not_valid_after_utc:
        return f"expired on {certificate.not_valid_after_utc:%Y-%m-%d}"
    if now < certificate.not_valid_before_utc:
        return f"is not valid before {certificate.not_valid_before_utc:%Y-%m-%d}"
    return None
