"""Initdata of Confidential Containers: configuration that the host hands to a pod, and is measured.

A TOML file. Its digest is MRCONFIGID, so a policy that names it decides which agent policy, key
broker and settings a pod runs with. It is measured, not secret.
"""

import base64
import hashlib
import tomllib
import zlib
from collections.abc import Callable, Mapping
from typing import Any

from torchkeep.client.errors import InitdataError

ANNOTATION = "io.katacontainers.config.hypervisor.cc_init_data"
MR_CONFIG_ID_BYTES = 48
VERSION = "0.1.0"
ALGORITHMS: Mapping[str, Callable[[bytes], Any]] = {
    "sha256": hashlib.sha256,
    "sha384": hashlib.sha384,
    "sha512": hashlib.sha512,
}
FILES = ("aa.toml", "cdh.toml", "policy.rego")  # what the guest components take from it
_GZIP = 31  # zlib's number for it; unlike the module gzip, the same bytes in every Python
_KEYS = ("version", "algorithm", "data")


def annotation_value(initdata: bytes) -> str:
    """What the annotation of the pod holds; the same for the same file."""
    return base64.b64encode(zlib.compress(initdata, 9, _GZIP)).decode()


def mr_config_id(initdata: bytes) -> bytes:
    """The digest of the file as it is, by its own algorithm, cut or filled up to 48 bytes.

    Raises InitdataError for what the guest would refuse, or not take notice of.
    """
    digest: bytes = ALGORITHMS[_algorithm(initdata)](initdata).digest()
    return digest[:MR_CONFIG_ID_BYTES].ljust(MR_CONFIG_ID_BYTES, b"\0")


def _algorithm(initdata: bytes) -> str:
    found = _toml(initdata, "the file")
    for key in found:
        if key not in _KEYS:
            raise InitdataError(f"{key}: there is no such key; known are {', '.join(_KEYS)}")
    if found.get("version") != VERSION:
        raise InitdataError(f'version: expected version = "{VERSION}"')
    algorithm = found.get("algorithm")
    if not isinstance(algorithm, str) or algorithm not in ALGORITHMS:
        raise InitdataError(f"algorithm: expected one of {', '.join(ALGORITHMS)}")
    data = found.get("data")
    if not isinstance(data, dict) or not data:
        raise InitdataError(f"[data]: expected at least one of {', '.join(FILES)}")
    for name, text in data.items():
        if name not in FILES:
            raise InitdataError(
                f"[data] {name}: the guest takes no such file; it takes {', '.join(FILES)}"
            )
        if not isinstance(text, str):
            raise InitdataError(f"[data] {name}: expected the text of the file")
        if name.endswith(".toml"):
            _toml(text.encode(), f"[data] {name}")
    return algorithm


def _toml(text: bytes, what: str) -> dict[str, Any]:
    try:
        return tomllib.loads(text.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise InitdataError(f"{what} is no TOML: {error}") from error
