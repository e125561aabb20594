"""Where the keys of sealed archives come from; `key_source` in config.properties chooses.

Whoever delivers a key gives it in a `bytearray`, so that its user can overwrite it. No text
here, of an error or a log line, ever holds one.
"""

import asyncio
import base64
import binascii
import json
import logging
import os
import re
import ssl
import stat
from pathlib import Path
from typing import Protocol

from torchkeep.runtime.broker import BrokerKeys
from torchkeep.runtime.errors import ConfigError, KeyReleaseError
from torchkeep.runtime.evidence import Evidence
from torchkeep.runtime.fetch import FetchFailed, Service, fetch, parse_service, trusting

log = logging.getLogger(__name__)

DATA_HUB = "http://127.0.0.1:8006"  # where Confidential Containers has it in every pod
MAX_FILE_BYTES = 1 << 20
EXPECTED = "file:/path/to/key, cdh:http://127.0.0.1:8006 or kbs:https://host"

_KEY_ID = re.compile(r"kbs:///((?:(?!\.{1,2}(?:/|$))[\w.-]+/){2}(?!\.{1,2}$)[\w.-]+)", re.ASCII)
RAW_KEY_BYTES = 32

# What the hub says of a failure, in words that change from release to release; often just that
# there was one. What is looked for first tells most: "RCAR handshake failed: connect error" is
# a broker that is down. Without a handshake that failed, "unautorized" (its spelling) and
# "unauthorized" are what is left of a refusal by policy.
_NOT_REACHED = re.compile(r"connect|sending request|dns error|time(d )?out|os error", re.IGNORECASE)
_UNATTESTED = re.compile(r"rcar|attestation|evidence|token", re.IGNORECASE)
_MISSING = re.compile(r"not ?found|\b404\b|PluginInternalError", re.IGNORECASE)
_DENIED = re.compile(r"polic(y|ies)|denied|forbidden|unauth?ori[sz]ed|\b40[13]\b", re.IGNORECASE)


class DeliversKeys(Protocol):
    """One source."""

    async def delivered(self, key_id: str) -> bytearray:
        """What is kept under `kbs:///repository/type/tag`. Raises KeyReleaseError."""
        ...


class FileKeys:
    """For development: a file with one key, or with a JSON object of keys by their ids."""

    def __init__(self, path: Path) -> None:
        self.path = path

    async def delivered(self, key_id: str) -> bytearray:
        content = await asyncio.to_thread(self._read)
        if len(content) == RAW_KEY_BYTES or not content.lstrip().startswith(b"{"):
            return content
        try:
            keys = json.loads(content)
        except (ValueError, RecursionError) as error:
            raise KeyReleaseError("wrong key", f"{self.path} is no JSON.") from error
        if "kty" in keys:
            return content  # a JWK, which is one key
        if key_id not in keys:
            raise KeyReleaseError("resource missing", f"{self.path} has no entry of that name.")
        try:
            return bytearray(base64.b64decode(str(keys[key_id]), validate=True))
        except (binascii.Error, ValueError) as error:
            raise KeyReleaseError("wrong key", f"Its entry in {self.path} is no base64.") from error

    def _read(self) -> bytearray:
        """The whole file, in one piece, so that no buffer keeps a second copy."""
        room = bytearray(MAX_FILE_BYTES + 1)
        try:
            # Nobody waits here for whoever might write into a pipe.
            descriptor = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
            try:
                mode = os.fstat(descriptor).st_mode
                length = os.readv(descriptor, [room]) if stat.S_ISREG(mode) else 0
            finally:
                os.close(descriptor)
        except OSError as error:
            raise KeyReleaseError(
                "unreachable", f"{self.path}: {error.strerror}.", is_temporary=True
            ) from error
        if not stat.S_ISREG(mode):
            raise KeyReleaseError("unreachable", f"{self.path} is no plain file.")
        if mode & (stat.S_IRWXG | stat.S_IRWXO):
            log.warning("others can read or change the key file %s: chmod 600 it", self.path)
        content = room[:length]
        room[:] = bytes(len(room))
        if length > MAX_FILE_BYTES:
            raise KeyReleaseError("wrong key", f"{self.path} has over {MAX_FILE_BYTES} bytes.")
        return content


class DataHubKeys:
    """The Confidential Data Hub of the pod, which attests and asks the broker by itself."""

    def __init__(self, service: Service) -> None:
        self._service = service

    async def delivered(self, key_id: str) -> bytearray:
        path = f"/cdh/resource/{_path_of(key_id)}"
        try:
            answer = await fetch(self._service, "GET", path, {})
        except FetchFailed as error:
            advice = f"The Confidential Data Hub {self._service.url}: {error}."
            raise KeyReleaseError("unreachable", advice, is_temporary=True) from error
        if answer.status == 200:
            return answer.body
        raise self._failure(answer.status, answer.body.decode("utf-8", "replace"))

    def _failure(self, status: int, text: str) -> KeyReleaseError:
        hub = f"The Confidential Data Hub {self._service.url}"
        if status == 403:
            return KeyReleaseError("policy denied", f"{hub} answers its own pod only.")
        if status in (400, 404, 405):
            return KeyReleaseError(
                "not configured", f"{hub} does not hand out resources (status {status})."
            )
        # All that goes wrong behind it is a 500, and only its text says what it was.
        is_clear = status == 500 and not _NOT_REACHED.search(text)
        if is_clear and _UNATTESTED.search(text):
            return KeyReleaseError(
                "attestation refused",
                f"{hub} said so: compare the broker's reference values with this pod.",
            )
        if is_clear and _MISSING.search(text):
            return KeyReleaseError(
                "resource missing", f"{hub} said so: ask the owner to put it into the broker."
            )
        if is_clear and _DENIED.search(text):
            return KeyReleaseError(
                "policy denied", f"{hub} said so: see the resource policy of its broker."
            )
        return KeyReleaseError("unreachable", f"{hub} failed: its broker?", is_temporary=True)


class ResourceKeys:
    """A Key Broker Service, asked directly."""

    def __init__(self, broker: BrokerKeys) -> None:
        self._broker = broker

    async def delivered(self, key_id: str) -> bytearray:
        return await self._broker.delivered(_path_of(key_id))


def key_source(
    setting: str | None, certificate: Path | None, evidence: Evidence | None
) -> DeliversKeys | None:
    """The source that the configuration names; None where it names none. Raises ConfigError."""
    if setting is None:
        return None
    kind, _, where = setting.partition(":")
    if kind == "file" and where:
        return FileKeys(Path(where))
    service = key_service(setting)
    if kind == "cdh" and service is not None:
        return DataHubKeys(service)
    if kind == "kbs" and service is not None:
        return ResourceKeys(BrokerKeys(_trusting(service, certificate), evidence))
    raise ConfigError(f"key_source={_plain(setting)}: expected {EXPECTED}")


def key_service(setting: str | None) -> Service | None:
    """The service that a setting names, which no client may make us connect to."""
    kind, _, where = (setting or "").partition(":")
    if kind not in ("cdh", "kbs"):
        return None
    ports = {"http": 8006 if kind == "cdh" else 8080}
    if kind == "kbs":
        ports["https"] = 443
    try:
        service = parse_service(where, ports)
        # The hub is in the same pod: what it answers is the key itself, in the clear.
        if kind == "cdh" and not service.is_on_this_machine:
            raise ValueError(f"{service.host} is not this machine, and nothing seals the key")
        return service
    except ValueError as error:
        raise ConfigError(
            f"key_source={_plain(setting or '')}: {error}; expected {EXPECTED}"
        ) from error


def _plain(setting: str) -> str:
    """Without the password that somebody may have put before the host."""
    return re.sub(r"//[^/]*@", "//...@", setting)


def _trusting(service: Service, certificate: Path | None) -> Service:
    if certificate is None:
        return service
    if service.certificate_authority is None:
        raise ConfigError(
            f"kbs_certificate={certificate}: {service.url} shows none; expected key_source=kbs:https://"
        )
    try:
        context = trusting(certificate)
    except (OSError, ssl.SSLError) as error:
        raise ConfigError(
            f"kbs_certificate={certificate}: {error.strerror or error}; expected a PEM file"
        ) from error
    return Service(service.scheme, service.host, service.port, context)


def _path_of(key_id: str) -> str:
    match = _KEY_ID.fullmatch(key_id)
    if match is None:
        raise KeyReleaseError("resource missing", "Expected kbs:///repository/type/tag.")
    return match[1]
