"""What a listener's side of TLS offers, and where its key goes."""

import os
import ssl
import subprocess
import sys
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding

from torchkeep.runtime.tls import self_signed, server_context


def test_only_authenticated_encryption_with_forward_secrecy_is_offered() -> None:
    certificate, key = self_signed(["localhost"])
    context = server_context(certificate.public_bytes(Encoding.PEM), key)
    assert context.minimum_version == ssl.TLSVersion.TLSv1_2
    for cipher in context.get_ciphers():
        assert cipher["aead"], cipher["name"]
        assert cipher["kea"] in ("kx-ecdhe", "kx-any"), cipher["name"]


def test_sessions_are_not_kept_beyond_their_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSLKEYLOGFILE", "/nowhere/keys")
    certificate, key = self_signed(["localhost"])
    context = server_context(certificate.public_bytes(Encoding.PEM), key)
    assert context.keylog_filename is None
    assert context.num_tickets == 0
    assert context.options & ssl.OP_NO_TICKET


def test_a_key_leaves_no_descriptor_and_no_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    certificate, key = self_signed(["localhost"])
    before = os.listdir("/proc/self/fd")
    server_context(certificate.public_bytes(Encoding.PEM), key)
    assert os.listdir("/proc/self/fd") == before
    assert list(tmp_path.iterdir()) == []


def test_a_process_whose_memory_is_private_can_do_it_too() -> None:
    # First as the user who may read the interpreter's files, so that all of them are imported.
    script = (
        "import os\n"
        "from cryptography.hazmat.primitives.serialization import Encoding\n"
        "from torchkeep.runtime.processes import keep_memory_private\n"
        "from torchkeep.runtime.tls import self_signed, server_context\n"
        "certificate, key = self_signed(['localhost'])\n"
        "server_context(certificate.public_bytes(Encoding.PEM), key)\n"
        "if os.getuid() == 0: os.setgroups([]); os.setgid(65534); os.setuid(65534)\n"
        "keep_memory_private()\n"
        "server_context(certificate.public_bytes(Encoding.PEM), key)\n"
    )
    subprocess.run([sys.executable, "-P", "-c", script], check=True)


def test_a_key_of_another_certificate_is_refused() -> None:
    certificate, _ = self_signed(["localhost"])
    with pytest.raises(ssl.SSLError, match="KEY_VALUES_MISMATCH"):
        server_context(
            certificate.public_bytes(Encoding.PEM), ec.generate_private_key(ec.SECP256R1())
        )
    with pytest.raises(ssl.SSLError):
        server_context(
            certificate.public_bytes(Encoding.PEM), rsa.generate_private_key(65537, 2048)
        )
