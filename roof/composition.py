"""Builds the server from the ground up, and takes it down in reverse."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

from torchkeep.frontend.attested_tls import AttestedTls
from torchkeep.frontend.dependencies import Installer
from torchkeep.frontend.listener import Listener
from torchkeep.frontend.metric_script import MetricScript
from torchkeep.frontend.model_events import ModelEvents
from torchkeep.frontend.registry import ModelRegistry
from torchkeep.frontend.request_opener import RequestOpener
from torchkeep.frontend.sealed_requests import SealedRequests
from torchkeep.frontend.served_model import ServedModel
from torchkeep.frontend.snapshots import Snapshots
from torchkeep.frontend.zygote_client import ZygoteClient
from torchkeep.modelstore.janitor import Janitor
from torchkeep.modelstore.store import ModelStore
from torchkeep.roof import attesting, listening, measuring
from torchkeep.roof.model_sources import model_store
from torchkeep.roof.plan import Plan
from torchkeep.roof.workers import model_defaults, worker_ground
from torchkeep.runtime.address import Address
from torchkeep.runtime.allocator import with_allocator
from torchkeep.runtime.config import Config
from torchkeep.runtime.errors import ConfigError
from torchkeep.runtime.evidence import AgentEvidence, SimulatedEvidence, evidence_source
from torchkeep.runtime.identity import AttestedKey, HpkeKey
from torchkeep.runtime.logs import start_step


@dataclass(frozen=True, slots=True)
class Server:
    """What `compose` built, ready to serving.serve."""

    listeners: list[Listener]
    addresses: Mapping[str, Address]  # by what is asked there
    attested_tls: AttestedTls | None
    metric_script: MetricScript | None
    registry: ModelRegistry
    snapshots: Snapshots
    loading: list[ServedModel]


@asynccontextmanager
async def compose(plan: Plan) -> AsyncIterator[Server]:
    """What was built is taken down in reverse, also when building fails.

    Raises ConfigError for what the configuration asks for and cannot have.
    """
    config = plan.config
    async with AsyncExitStack() as stack:
        keys = listening.api_keys(config, stack)
        attesting.check(config)
        source = evidence_source(config.evidence)
        store = model_store(plan, source)
        if store.key_source is not None:
            # Before the zygote, who ends every later child that nobody told it of.
            stack.enter_context(Janitor(store.rules.unpack_roots()))
        environment = with_allocator(plan.environ, plan.compute.allocator_library)
        zygote = await stack.enter_async_context(ZygoteClient(environment))
        await asyncio.to_thread(store.sweep)
        ground = worker_ground(plan, zygote, store)
        installer = Installer(
            zygote, plan.environ, config.install_py_dep_per_model, ground.interpreters
        )
        evidence = source
        if source is None and config.insecure_simulated_tee:
            evidence = SimulatedEvidence()
        events = ModelEvents(evidence) if isinstance(evidence, AgentEvidence) else None
        defaults = model_defaults(config, plan.compute, ground.gpus.count)
        registry = ModelRegistry(store, ground, defaults, installer, events)
        stack.push_async_callback(registry.close)
        snapshots = Snapshots(config.snapshots, config.given, config.source, registry)
        key, hpke_key = AttestedKey(), HpkeKey()
        attestor = attesting.attestor(plan, evidence, key, hpke_key, registry)
        opener = RequestOpener(SealedRequests(hpke_key), key) if attestor else None
        settings = listening.api_settings(plan, registry, snapshots, keys, attestor, opener)
        listeners = listening.listeners(plan, registry, settings)
        attested_tls = None
        if config.attested_tls and attestor is not None:
            attested_tls = AttestedTls(attestor, key)
            context = await attesting.opened(attested_tls)
            listeners.append(listening.attested_listener(plan, registry, settings, context))
        loading = await _load_models(config, store, registry)
        measuring.observe(plan.metrics, registry)
        yield Server(
            listeners,
            listening.addresses(config),
            attested_tls,
            measuring.metric_script(plan, zygote, registry),
            registry,
            snapshots,
            loading,
        )


async def _load_models(
    config: Config, store: ModelStore, registry: ModelRegistry
) -> list[ServedModel]:
    """What the configuration asks for; of a snapshot, what it holds and nothing else."""
    if config.model_snapshot is None:
        urls = store.startup_urls(config.load_models)
        loaded = [await registry.load_at_startup(name, url) for name, url in urls]
    else:
        root = config.model_store
        for saved in config.model_snapshot:
            if root is None or not (root / saved.archive).exists():
                raise ConfigError(
                    f"Model archive file for model {saved.name}, version {saved.version} not found "
                    f"in model store: {config.source} needs {saved.archive} there, or start with "
                    "--ncs or another --ts-config"
                )
        if not config.model_snapshot:
            start_step(f"Warning: the snapshot {config.source} holds no models")
        loaded = [await registry.restore(saved) for saved in config.model_snapshot]
    return [served for served in loaded if served is not None]
