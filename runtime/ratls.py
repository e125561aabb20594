"""The certificate of an attested listener: RA-TLS in the form of CCC Interoperable RA-TLS.

Self-signed, for a key that was born in this process. One extension, not critical, carries the
evidence: CBOR tag 60000 around `[quote, claims buffer]`. Who reads it must compare the key of the
connection with the claims, and verify the quote: the signature of the certificate proves nothing.
"""

import datetime
from dataclasses import dataclass

import cbor2
from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID, ObjectIdentifier

EVIDENCE_OID = ObjectIdentifier("2.23.133.5.4.9")  # tcg-dice-TaggedEvidence
EVIDENCE_TAG = 60000
LIFETIME = datetime.timedelta(hours=24)
CLOCK_SKEW = datetime.timedelta(minutes=5)
MAX_EVIDENCE_BYTES = 1 << 17


class CertificateError(ValueError):
    """What was given is no certificate of an attested listener; the text says why."""


@dataclass(frozen=True, slots=True)
class AttestedCertificate:
    """What such a certificate holds."""

    quote: bytes
    claims: bytes  # the claims buffer
    public_key: bytes  # SubjectPublicKeyInfo, DER
    not_before: datetime.datetime  # UTC
    not_after: datetime.datetime


def make_certificate(
    key: ec.EllipticCurvePrivateKey, quote: bytes, claims: bytes, now: datetime.datetime
) -> bytes:
    """A certificate (DER) for `key` whose evidence is `quote`, bound to these claims."""
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Torchkeep attested listener")])
    evidence = cbor2.dumps(cbor2.CBORTag(EVIDENCE_TAG, [quote, claims]))
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - CLOCK_SKEW)
        .not_valid_after(now + LIFETIME)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.UnrecognizedExtension(EVIDENCE_OID, evidence), critical=False)
        .sign(key, SHA256())
    )
    return certificate.public_bytes(Encoding.DER)


def read_certificate(der: bytes) -> AttestedCertificate:
    """Raises CertificateError."""
    try:
        certificate = x509.load_der_x509_certificate(der)
        extensions = certificate.extensions
        public_key = certificate.public_key()
    except (ValueError, TypeError, x509.DuplicateExtension, UnsupportedAlgorithm) as error:
        raise CertificateError("the certificate cannot be read") from error
    try:
        found = extensions.get_extension_for_oid(EVIDENCE_OID).value
    except x509.ExtensionNotFound as error:
        raise CertificateError("the certificate carries no evidence") from error
    assert isinstance(found, x509.UnrecognizedExtension)
    quote, claims = _evidence(found.value)
    return AttestedCertificate(
        quote,
        claims,
        public_key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo),
        certificate.not_valid_before_utc,
        certificate.not_valid_after_utc,
    )


def _evidence(encoded: bytes) -> tuple[bytes, bytes]:
    if len(encoded) > MAX_EVIDENCE_BYTES:
        raise CertificateError(f"the evidence has more than {MAX_EVIDENCE_BYTES} bytes")
    try:
        found = cbor2.loads(encoded)
    except (cbor2.CBORDecodeError, ValueError, RecursionError) as error:
        raise CertificateError("the evidence in the certificate is no CBOR") from error
    match found:
        case cbor2.CBORTag(tag=tag, value=[bytes(quote), bytes(claims)]) if tag == EVIDENCE_TAG:
            return quote, claims
    raise CertificateError(f"the evidence in the certificate is no tag {EVIDENCE_TAG} of two")
