"""Where models come from and lie unpacked, and whose keys open them."""

import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from torchkeep.frontend.sandbox_policy import SandboxPolicy
from torchkeep.modelstore.errors import KeyUnavailable
from torchkeep.modelstore.keys import key_bytes, wipe
from torchkeep.modelstore.memory_place import MemoryPlace
from torchkeep.modelstore.reach import Reach
from torchkeep.modelstore.s3_signing import S3Signer
from torchkeep.modelstore.seal_header import check_key_id
from torchkeep.modelstore.store import ModelStore
from torchkeep.modelstore.trust import Trust, parse_trusted_models
from torchkeep.roof.plan import Plan
from torchkeep.runtime.config import Config
from torchkeep.runtime.errors import ConfigError, KeyReleaseError
from torchkeep.runtime.evidence import AgentEvidence, Evidence, SampleEvidence
from torchkeep.runtime.keys import DeliversKeys, key_service, key_source


def model_store(plan: Plan, evidence: Evidence | None) -> ModelStore:
    """`evidence` is what a key broker is shown."""
    config, environ = plan.config, plan.environ
    temporary = _unpack_root(environ)
    default_key_id = environ.get("CONFIDENTIAL_RESOURCE_ID", "")  # KServe's name for it
    source = _key_source(config, evidence)
    try:
        if default_key_id:
            check_key_id(default_key_id)
    except ValueError as error:
        raise ConfigError(f"CONFIDENTIAL_RESOURCE_ID: {error}") from error
    try:
        trusted = config.trusted_models
        models = None if trusted is None else parse_trusted_models(trusted)
    except ValueError as error:
        raise ConfigError(f"trusted_models: {error}") from error
    return ModelStore(
        config.model_store,
        config.allowed_urls,
        config.unpack_directory or temporary,
        key_source=_Keys(source) if source else None,
        default_key_id=default_key_id,
        trust=Trust(config.require_sealed_models, models),
        memory_place=MemoryPlace(
            config.unpack_directory, temporary, is_disk_allowed=config.allow_unsealed_on_disk
        ),
        reach=_reach(config, plan.sandbox, evidence),
        signer=S3Signer.from_environment(environ),
    )


def _reach(config: Config, sandbox: SandboxPolicy, evidence: Evidence | None) -> Reach:
    """Where registering by url may lead."""
    services = [key_service(config.key_source)]
    if isinstance(evidence, AgentEvidence):
        services.append(evidence.service)
    closed = [(service.host, service.port) for service in services if service is not None]
    return Reach(closed, is_loopback_allowed=sandbox.level != "strict")


def _unpack_root(environ: Mapping[str, str]) -> Path:
    """Below it, archives are unpacked. TorchServe: TEMP, where it is set.

    Otherwise not /tmp: what a handler makes beside the way to a hidden directory it cannot
    read again (see `everything_but`), and there are handlers that write to /tmp.
    """
    named = environ.get("TEMP") or environ.get("TMPDIR")
    if not named and os.access("/var/tmp", os.W_OK | os.X_OK):
        named = "/var/tmp"
    return Path(named or tempfile.gettempdir())


@dataclass(frozen=True, slots=True)
class _Keys:
    """A source of keys, as the model store knows one; the two know nothing of each other."""

    source: DeliversKeys

    async def key_for(self, key_id: str) -> bytearray:
        try:
            delivered = await self.source.delivered(key_id)
        except KeyReleaseError as error:
            raise KeyUnavailable(
                key_id, error.step, error.advice, is_temporary=error.is_temporary
            ) from error
        try:
            return key_bytes(delivered, key_id)
        finally:
            wipe(delivered)


def _key_source(config: Config, evidence: Evidence | None) -> DeliversKeys | None:
    if evidence is None and config.insecure_simulated_tee:
        # A broker knows the sample TEE of its own project, and not the TEE that we simulate.
        evidence = SampleEvidence()
    return key_source(config.key_source, config.kbs_certificate, evidence)
