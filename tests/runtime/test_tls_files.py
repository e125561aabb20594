"""Certificates and keys as TorchServe's users have them, and what can be wrong with them."""

import datetime
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import dsa, ec, rsa
from cryptography.hazmat.primitives.asymmetric.types import CertificateIssuerPrivateKeyTypes
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    KeySerializationEncryption,
    NoEncryption,
    PrivateFormat,
    pkcs12,
)
from cryptography.x509.oid import NameOID

from torchkeep.runtime.errors import ConfigError
from torchkeep.runtime.tls import server_context
from torchkeep.runtime.tls_files import Identity, read_keystore, read_pem

NOW = datetime.datetime.now(datetime.UTC)
DAY = datetime.timedelta(days=1)


def issue(
    name: str,
    key: CertificateIssuerPrivateKeyTypes,
    issuer: str,
    issuer_key: CertificateIssuerPrivateKeyTypes,
    days: tuple[int, int] = (-1, 1),
) -> x509.Certificate:
    def named(text: str) -> x509.Name:
        return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])

    return (
        x509.CertificateBuilder()
        .subject_name(named(name))
        .issuer_name(named(issuer))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(NOW + days[0] * DAY)
        .not_valid_after(NOW + days[1] * DAY)
        .sign(issuer_key, hashes.SHA256())
    )


KEY = rsa.generate_private_key(65537, 2048)
ROOT_KEY, MIDDLE_KEY = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
ROOT = issue("root", ROOT_KEY, "root", ROOT_KEY)
MIDDLE = issue("middle", MIDDLE_KEY, "root", ROOT_KEY)
LEAF = issue("leaf", KEY, "middle", MIDDLE_KEY)


def key_pem(
    form: PrivateFormat = PrivateFormat.PKCS8,
    encryption: KeySerializationEncryption | None = None,
) -> bytes:
    return KEY.private_bytes(Encoding.PEM, form, encryption or NoEncryption())


def chain_pem(*certificates: x509.Certificate) -> bytes:
    return b"".join(one.public_bytes(Encoding.PEM) for one in certificates)


class Files:
    """Writes the two PEM files, or a keystore, and reads them."""

    def __init__(self, directory: Path) -> None:
        self.key = directory / "key.pem"
        self.certificate = directory / "cert.pem"
        self.keystore = directory / "store.p12"
        self.key.write_bytes(key_pem())
        self.certificate.write_bytes(chain_pem(LEAF, MIDDLE))

    def pem(self) -> Identity:
        return read_pem(self.key, self.certificate)

    def complaint(self, read: Callable[[], Identity] | None = None) -> str:
        with pytest.raises(ConfigError) as caught:
            (read or self.pem)()
        return str(caught.value)


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return Files(tmp_path)


@pytest.mark.parametrize("form", [PrivateFormat.PKCS8, PrivateFormat.TraditionalOpenSSL])
def test_pem_files(files: Files, form: PrivateFormat) -> None:
    files.key.write_bytes(key_pem(form))
    identity = files.pem()
    assert list(identity.chain) == [LEAF, MIDDLE]
    assert identity.warnings(NOW) == []
    server_context(identity.chain_pem, identity.key)


def test_one_pem_file_without_the_other(files: Files) -> None:
    said = files.complaint(lambda: read_pem(files.key, None))
    assert said == f"private_key_file={files.key} needs certificate_file, too"
    said = files.complaint(lambda: read_pem(None, files.certificate))
    assert said == f"certificate_file={files.certificate} needs private_key_file, too"


def test_a_missing_file_is_named(files: Files) -> None:
    files.certificate.unlink()
    said = files.complaint()
    assert said == f"certificate_file: {files.certificate}: No such file or directory"
    files.key.unlink()
    assert files.complaint() == f"private_key_file: {files.key}: No such file or directory"
    said = files.complaint(lambda: read_keystore(files.keystore, "changeit", "PKCS12"))
    assert said == f"keystore: {files.keystore}: No such file or directory"


@pytest.mark.parametrize("content", [b"", b"hello", chain_pem(LEAF), key_pem()[:100]])
def test_no_private_key(files: Files, content: bytes) -> None:
    files.key.write_bytes(content)
    assert f"private_key_file: {files.key} holds no private key that can be" in files.complaint()


@pytest.mark.parametrize("content", [b"", b"hello", key_pem(), chain_pem(LEAF)[:100]])
def test_no_certificate(files: Files, content: bytes) -> None:
    files.certificate.write_bytes(content)
    assert f"certificate_file: {files.certificate} holds no certificates" in files.complaint()


def test_an_encrypted_key_has_nobody_who_knows_its_password(files: Files) -> None:
    files.key.write_bytes(key_pem(encryption=BestAvailableEncryption(b"secret")))
    assert f"private_key_file: {files.key} is encrypted" in files.complaint()


def test_a_key_that_tls_has_no_use_for(files: Files) -> None:
    key = dsa.generate_private_key(2048)
    files.key.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    assert f"private_key_file: {files.key}: " in files.complaint()
    assert "expected RSA or EC" in files.complaint()


def test_a_key_that_does_not_fit_the_certificate(files: Files) -> None:
    files.certificate.write_bytes(chain_pem(MIDDLE, LEAF))
    said = files.complaint()
    assert said.startswith(f"private_key_file={files.key}, certificate_file={files.certificate}: ")
    assert "the private key is not that of the first certificate" in said


@pytest.mark.parametrize(
    ("days", "problem"), [((-2, -1), "expired on "), ((1, 2), "is not valid before ")]
)
def test_a_certificate_out_of_its_time_is_warned_of(
    files: Files, days: tuple[int, int], problem: str
) -> None:
    files.certificate.write_bytes(chain_pem(issue("leaf", KEY, "middle", MIDDLE_KEY, days), MIDDLE))
    (warning,) = files.pem().warnings(NOW)
    assert f"certificate_file={files.certificate}: the certificate of CN=leaf {problem}" in warning


# Keystores


def write_keystore(path: Path, password: bytes, with_key: bool = True) -> None:
    key = KEY if with_key else None
    encryption = BestAvailableEncryption(password)
    content = pkcs12.serialize_key_and_certificates(
        b"ts", key, LEAF if with_key else None, [ROOT, MIDDLE], encryption
    )
    path.write_bytes(content)


@pytest.mark.parametrize("keystore_type", ["PKCS12", "pkcs12", "JKS"])
def test_a_keystore(files: Files, keystore_type: str) -> None:
    write_keystore(files.keystore, b"changeit")
    identity = read_keystore(files.keystore, "changeit", keystore_type)
    assert list(identity.chain) == [LEAF, MIDDLE, ROOT]  # in the order of their signatures
    server_context(identity.chain_pem, identity.key)


def test_a_wrong_password(files: Files) -> None:
    write_keystore(files.keystore, b"another")
    said = files.complaint(lambda: read_keystore(files.keystore, "changeit", "PKCS12"))
    assert f"keystore: {files.keystore} cannot be opened: keystore_pass is not its" in said


def test_a_keystore_without_a_key(files: Files) -> None:
    write_keystore(files.keystore, b"changeit", with_key=False)
    said = files.complaint(lambda: read_keystore(files.keystore, "changeit", "PKCS12"))
    assert said == f"keystore: {files.keystore} holds no private key with a certificate"


@pytest.mark.parametrize(
    ("magic", "kind"), [(b"\xfe\xed\xfe\xed", "JKS"), (b"\xce\xce\xce\xce", "JCEKS")]
)
def test_what_only_java_reads_is_refused_with_the_command_that_converts_it(
    files: Files, magic: bytes, kind: str
) -> None:
    path = files.keystore.with_suffix(".jks")
    path.write_bytes(magic + bytes(100))
    said = files.complaint(lambda: read_keystore(path, "changeit", "JKS"))
    assert f"keystore: {path} is of type {kind}, which only Java reads" in said
    assert (
        f"keytool -importkeystore -srckeystore {path} -srcstoretype {kind} "
        f"-destkeystore {files.keystore} -deststoretype PKCS12" in said
    )


def test_what_is_no_keystore_at_all(files: Files) -> None:
    said = files.complaint(lambda: read_keystore(files.key, "changeit", "PKCS12"))
    assert f"keystore: {files.key} is no keystore: expected a PKCS12 file" in said
