"""Who makes evidence for clients, and whether the configuration lets it mean something."""

import ssl
from functools import partial

from torchkeep.frontend.attestation import Attestor, ServerIdentity
from torchkeep.frontend.attested_tls import AttestedTls
from torchkeep.frontend.registry import ModelRegistry
from torchkeep.roof.plan import Plan
from torchkeep.runtime.claims import ModelClaim
from torchkeep.runtime.config import Config
from torchkeep.runtime.config_digest import config_digest
from torchkeep.runtime.errors import ConfigError, EvidenceError
from torchkeep.runtime.evidence import Evidence
from torchkeep.runtime.identity import AttestedKey, HpkeKey
from torchkeep.runtime.logs import start_step


def check(config: Config) -> None:
    if config.evidence == "tsm" and config.insecure_simulated_tee:
        raise ConfigError(
            "evidence=tsm and insecure_simulated_tee=true: either is possible, both are not; of an "
            "agent, quotes may be simulated"
        )
    if not config.attested_tls:
        return
    if config.evidence is None and not config.insecure_simulated_tee:
        raise ConfigError("attested_tls=true: there is no evidence to show: set evidence=agent")
    if not config.attested_address.is_tls:
        raise ConfigError(f"attested_address={config.attested_address}: expected https://host:port")
    if not config.inference_address.is_local:
        raise ConfigError(
            f"attested_tls=true: inference_address={config.inference_address} would take requests "
            "from other machines past it: set inference_address=http://127.0.0.1:8080"
        )


def attestor(
    plan: Plan,
    evidence: Evidence | None,
    key: AttestedKey,
    hpke_key: HpkeKey,
    registry: ModelRegistry,
) -> Attestor | None:
    """Who makes evidence for clients."""
    if evidence is None:
        return None
    config = plan.config
    digest = config_digest(config, plan.sandbox.facts(), plan.plugins.sources)
    tee = "simulated" if config.insecure_simulated_tee else evidence.tee
    label = "SIMULATED evidence" if config.insecure_simulated_tee else "Evidence"
    start_step(f"{label} for clients: GET /attestation, configuration {digest.hex()}")
    identity = ServerIdentity(key, hpke_key.public_key, digest, tee)
    return Attestor(evidence, identity, partial(_model_claims, registry))


def _model_claims(registry: ModelRegistry) -> list[ModelClaim]:
    return [served.claim for served in registry.all()]


async def opened(tls: AttestedTls) -> ssl.SSLContext:
    try:
        return await tls.open()
    except EvidenceError as error:
        raise ConfigError(f"attested_tls=true: {error}") from error
