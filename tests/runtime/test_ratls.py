"""The certificate of an attested listener: written, read, and what is none."""

import datetime

import cbor2
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, x25519
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import NameOID

from torchkeep.runtime.ratls import (
    EVIDENCE_OID,
    CertificateError,
    make_certificate,
    read_certificate,
)

NOW = datetime.datetime(2026, 1, 2, 3, 4, 5, tzinfo=datetime.UTC)
KEY = ec.generate_private_key(ec.SECP256R1())


def certificate() -> bytes:
    return make_certificate(KEY, b"quote", b"claims", NOW)


def test_certificate_carries_evidence_and_key() -> None:
    read = read_certificate(certificate())
    assert (read.quote, read.claims) == (b"quote", b"claims")
    spki = KEY.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    assert read.public_key == spki
    assert read.not_before < NOW < read.not_after


def test_extension_has_the_documented_bytes() -> None:
    extension = x509.load_der_x509_certificate(certificate()).extensions.get_extension_for_oid(
        EVIDENCE_OID
    )
    assert EVIDENCE_OID.dotted_string == "2.23.133.5.4.9"
    assert not extension.critical
    assert isinstance(extension.value, x509.UnrecognizedExtension)
    # Tag 60000, an array of two byte strings.
    assert extension.value.value == bytes.fromhex("d9ea6082") + b"\x45quote\x46claims"


def with_extension(value: bytes | None) -> bytes:
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "x")])
    builder = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(KEY.public_key())
        .serial_number(1)
        .not_valid_before(NOW)
        .not_valid_after(NOW)
    )
    if value is not None:
        extension = x509.UnrecognizedExtension(EVIDENCE_OID, value)
        builder = builder.add_extension(extension, critical=False)
    return builder.sign(KEY, SHA256()).public_bytes(Encoding.DER)


@pytest.mark.parametrize(
    ("der", "reason"),
    [
        (b"", "cannot be read"),
        (b"\x30\x82", "cannot be read"),
        (with_extension(None), "no evidence"),
        (with_extension(b""), "no CBOR"),
        (with_extension(b"\xff"), "no CBOR"),
        (with_extension(cbor2.dumps([b"q", b"c"])), "no tag"),
        (with_extension(cbor2.dumps(cbor2.CBORTag(60001, [b"q", b"c"]))), "no tag"),
        (with_extension(cbor2.dumps(cbor2.CBORTag(60000, [b"q"]))), "no tag"),
        (with_extension(cbor2.dumps(cbor2.CBORTag(60000, ["q", b"c"]))), "no tag"),
        (with_extension(b"\x00" * (1 << 18)), "more than"),
    ],
)
def test_what_is_no_such_certificate_is_named(der: bytes, reason: str) -> None:
    with pytest.raises(CertificateError, match=reason):
        read_certificate(der)


def test_key_of_another_kind_is_read_as_it_is() -> None:
    # It is for the verifier to compare it: no attested key is of this kind.
    key = x25519.X25519PrivateKey.generate().public_key()
    name = x509.Name([])
    der = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key)
        .serial_number(1)
        .not_valid_before(NOW)
        .not_valid_after(NOW)
        .sign(KEY, SHA256())
        .public_bytes(Encoding.DER)
    )
    with pytest.raises(CertificateError, match="no evidence"):
        read_certificate(der)
