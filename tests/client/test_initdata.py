"""Initdata: the annotation, the measurement, and what the guest would not take."""

import base64
import gzip
import hashlib

import pytest

from torchkeep.client.errors import InitdataError
from torchkeep.client.initdata import ANNOTATION, annotation_value, mr_config_id

INITDATA = b"""
version = "0.1.0"
algorithm = "sha384"

[data]
"aa.toml" = '''
[token_configs]
[token_configs.kbs]
url = "https://broker.example"
'''
"cdh.toml" = "socket = 'unix:///run/cdh.sock'"
"policy.rego" = "package agent_policy"
"""


def with_algorithm(name: str) -> bytes:
    return INITDATA.replace(b"sha384", name.encode())


def test_annotation_holds_the_file_and_stays_the_same() -> None:
    assert ANNOTATION == "io.katacontainers.config.hypervisor.cc_init_data"
    value = annotation_value(INITDATA)
    assert gzip.decompress(base64.b64decode(value, validate=True)) == INITDATA
    assert value == annotation_value(INITDATA)
    # No time, no name, and the operating system as zlib writes it.
    assert base64.b64decode(value)[:10].hex() == "1f8b0800000000000203"


def test_measurement_is_the_digest_of_the_whole_file() -> None:
    assert mr_config_id(INITDATA) == hashlib.sha384(INITDATA).digest()
    longer = with_algorithm("sha512")
    assert mr_config_id(longer) == hashlib.sha512(longer).digest()[:48]
    shorter = with_algorithm("sha256")
    assert mr_config_id(shorter) == hashlib.sha256(shorter).digest() + bytes(16)
    assert mr_config_id(INITDATA + b"\n") != mr_config_id(INITDATA)


@pytest.mark.parametrize(
    ("initdata", "reason"),
    [
        (b"", "version: expected"),
        (b"\xff", "the file is no TOML"),
        (b"version = ", "the file is no TOML"),
        (INITDATA.replace(b"0.1.0", b"0.2.0"), 'version: expected version = "0.1.0"'),
        (with_algorithm("md5"), "algorithm: expected one of sha256, sha384, sha512"),
        (INITDATA.replace(b'"sha384"', b"384"), "algorithm: expected"),
        (b"more = 1\n" + INITDATA, "more: there is no such key"),
        (b'version = "0.1.0"\nalgorithm = "sha384"', r"\[data\]: expected at least one of"),
        (b'version = "0.1.0"\nalgorithm = "sha384"\n[data]', r"\[data\]: expected at least one"),
        (INITDATA.replace(b"cdh.toml", b"chd.toml"), r"\[data\] chd.toml: the guest takes no such"),
        (INITDATA.replace(b'"package agent_policy"', b"1"), "policy.rego: expected the text"),
        (INITDATA.replace(b"[token_configs]\n", b"[token\n"), r"\[data\] aa.toml is no TOML"),
    ],
)
def test_what_the_guest_would_not_take_is_named(initdata: bytes, reason: str) -> None:
    with pytest.raises(InitdataError, match=reason):
        mr_config_id(initdata)
