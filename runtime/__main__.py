"""The roof: composes everything, serves until SIGTERM, and leaves nothing behind.

This is the only place that knows all folders, and the only one that reads the environment.
"""

import argparse
import asyncio
import logging
import os
import re
import shutil
import signal
import ssl
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from importlib.metadata import version
from pathlib import Path
from time import monotonic
from typing import cast

import uvloop
from cryptography.hazmat.primitives.hashes import SHA256

from torchkeep.frontend.api_keys import KEY_FILE, ApiKeys
from torchkeep.frontend.app import (
    ApiSettings,
    inference_app,
    management_app,
    metrics_app,
    shared_app,
)
from torchkeep.frontend.attestation import Attestor, ServerIdentity
from torchkeep.frontend.attested_tls import AttestedTls
from torchkeep.frontend.dependencies import Installer
from torchkeep.frontend.gpus import Gpus
from torchkeep.frontend.http_protocol import Limits
from torchkeep.frontend.listener import Listener
from torchkeep.frontend.metric_script import MetricScript, script_of
from torchkeep.frontend.metrics import MetricLogs, Metrics, Mode
from torchkeep.frontend.metrics_config import (
    MetricsConfig,
    MetricsConfigError,
    parse_metrics_config,
)
from torchkeep.frontend.model_events import ModelEvents
from torchkeep.frontend.parallel import DistributionPorts
from torchkeep.frontend.plugin_endpoints import (
    PluginEndpoints,
    check_endpoints,
    endpoints_of,
    server_state,
)
from torchkeep.frontend.registry import ModelDefaults, ModelRegistry
from torchkeep.frontend.request_opener import RequestOpener
from torchkeep.frontend.responses import Cors
from torchkeep.frontend.sandbox_policy import SandboxPolicy, sandbox_policy
from torchkeep.frontend.sealed_requests import SealedRequests
from torchkeep.frontend.sequences import SequenceKeys
from torchkeep.frontend.served_model import ServedModel, WorkerGround, worker_ids
from torchkeep.frontend.snapshots import Snapshots
from torchkeep.frontend.system_metrics import SystemMetrics
from torchkeep.frontend.thread_plan import ThreadPlan
from torchkeep.frontend.zygote_client import ZygoteClient
from torchkeep.modelstore import sealing_commands
from torchkeep.modelstore.errors import KeyUnavailable
from torchkeep.modelstore.janitor import Janitor
from torchkeep.modelstore.keys import key_bytes, wipe
from torchkeep.modelstore.memory_place import MemoryPlace
from torchkeep.modelstore.reach import Reach
from torchkeep.modelstore.s3_signing import S3Signer
from torchkeep.modelstore.seal_header import check_key_id
from torchkeep.modelstore.store import ModelStore
from torchkeep.modelstore.trust import Trust, parse_trusted_models
from torchkeep.modelstore.unpack_area import UnpackArea
from torchkeep.runtime import start_stop
from torchkeep.runtime.address import Address
from torchkeep.runtime.allocator import with_allocator
from torchkeep.runtime.claims import ModelClaim
from torchkeep.runtime.command_line import CLIENT_COMMANDS, Flags
from torchkeep.runtime.compute import Compute, plan_compute
from torchkeep.runtime.config import Config, load_config
from torchkeep.runtime.config_digest import config_digest
from torchkeep.runtime.config_dump import config_dump
from torchkeep.runtime.doctor import examine
from torchkeep.runtime.errors import ConfigError, EvidenceError, KeyReleaseError
from torchkeep.runtime.evidence import (
    AgentEvidence,
    Evidence,
    SampleEvidence,
    SimulatedEvidence,
    evidence_source,
)
from torchkeep.runtime.identity import AttestedKey, HpkeKey
from torchkeep.runtime.kernel import kernel_layers
from torchkeep.runtime.keys import DeliversKeys, key_service, key_source
from torchkeep.runtime.log_setup import choose_outlet
from torchkeep.runtime.logs import AccessLog, Logs, configure_logging, start_step
from torchkeep.runtime.plugin_loading import Plugins, load_plugins
from torchkeep.runtime.plugins import Port
from torchkeep.runtime.processes import keep_memory_private
from torchkeep.runtime.tls import self_signed, server_context
from torchkeep.runtime.tls_files import Identity, read_keystore, read_pem

log = logging.getLogger("torchkeep.runtime")

# Holds the `ts` that workers import.
_TS_COMPAT = Path(__file__).resolve().parent.parent / "backend" / "ts-compat"
_SHIPPED_METRICS = _TS_COMPAT / "ts/configs/metrics.yaml"  # metrics_config names another
_TS_PATH = "print the folder of the package `ts`, for tests of handlers and for editors"
DRAIN_S = 50.0  # `torchserve --stop` waits for 60 s, the listeners for 55


def torchserve(argv: list[str] | None = None) -> None:
    """The console script with TorchServe's name, flags, messages and exit codes."""
    sys.exit(start_stop.torchserve(argv, serve))


def torchkeep(argv: list[str] | None = None) -> None:
    """Our own console script."""
    arguments = sys.argv[1:] if argv is None else argv
    if arguments and arguments[0] in sealing_commands.COMMANDS:
        sys.exit(sealing_commands.main(arguments))
    if arguments and arguments[0] in CLIENT_COMMANDS:
        sys.exit(_client_command(arguments))
    if arguments and arguments[0] == "ts-path":
        sys.exit(_ts_path(arguments[1:]))
    others = {**sealing_commands.COMMANDS, **CLIENT_COMMANDS, "ts-path": _TS_PATH}
    sys.exit(start_stop.torchkeep(arguments, serve, doctor, others))


def _ts_path(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="torchkeep ts-path",
        description=f"{_TS_PATH[0].upper()}{_TS_PATH[1:]}: PYTHONPATH=$(torchkeep ts-path) pytest. "
        "The archivers' Python packages are there, too.",
    )
    parser.parse_args(arguments)
    sys.stdout.write(f"{_TS_COMPAT}\n")
    return 0


def _client_command(arguments: list[str]) -> int:
    # Not at the top: servers are installed without what clients need.
    try:
        from torchkeep.client import commands
    except ModuleNotFoundError as error:
        if error.name not in ("dcap_qvl", "httpx"):
            raise
        sys.stderr.write(
            f"torchkeep: {arguments[0]} needs {error.name}: pip install 'torchkeep[client]'\n"
        )
        return 2
    return commands.main(arguments)


def serve(flags: Flags) -> int:
    """Run the server in this process until SIGTERM or SIGINT; returns the exit code."""
    config, plugins = _configuration(flags, os.environ, Path.cwd())
    outlet, warnings = choose_outlet(flags.log_config, config.vmargs, os.environ)
    config.warnings.extend(warnings)
    with (
        configure_logging(outlet) as logs,
        asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner,
    ):
        metrics_file = config.metrics_config or _SHIPPED_METRICS
        log.info("%s", config_dump(config, os.environ, metrics_file))
        metrics = _metrics(config, logs if outlet.keeps_metrics else None)
        return runner.run(_serve(config, plugins, os.environ, logs.access, metrics))


def doctor(flags: Flags) -> int:
    """Say what this machine offers a server, what one would use, and what to change."""
    config = load_config(flags, os.environ, Path.cwd())
    compute = plan_compute(config, os.environ)
    plan = ThreadPlan(compute.cores, compute.fixed_threads, compute.pins)
    workers = _startup_workers(config, compute)
    for line in examine(
        compute, kernel_layers().describe(), plan.describe(workers), workers, Path("/proc")
    ):
        sys.stdout.write(f"{line}\n")
    return 0


def _configuration(flags: Flags, environ: Mapping[str, str], cwd: Path) -> tuple[Config, Plugins]:
    """The configuration and the plugins: either may come from the other.

    Plugins that flags or a file name are loaded first, because one of them may keep the snapshot
    that is to be restored. Otherwise a snapshot that is a file may name plugins.
    """
    try:
        early = load_config(replace(flags, no_config_snapshots=True), environ, cwd)
    except ConfigError:
        early = Config()  # raised again below, unless that file does not count
    plugins = load_plugins(early.plugins_path, cwd, is_confidential=early.is_confidential)
    keeps_snapshots = not flags.no_config_snapshots
    config = load_config(flags, environ, cwd, plugins.open_store() if keeps_snapshots else None)
    if (config.plugins_path, config.is_confidential) != (early.plugins_path, early.is_confidential):
        plugins = load_plugins(config.plugins_path, cwd, is_confidential=config.is_confidential)
        if keeps_snapshots:
            config = replace(config, snapshots=plugins.open_store() or config.snapshots)
    shares_port = config.inference_address == config.management_address
    check_endpoints(plugins.endpoints, share_port=shares_port)
    config.warnings.extend(plugins.warnings)
    return config, plugins


async def _serve(
    config: Config,
    plugins: Plugins,
    environ: Mapping[str, str],
    access_log: AccessLog,
    metrics: Metrics,
) -> int:
    compute = plan_compute(config, environ)
    sandbox = _sandbox_policy(config)
    if sandbox.level != "off" or config.key_source is not None:
        keep_memory_private()  # of the frontend itself
    pins = compute.pins and sandbox.may_pin
    plan = ThreadPlan(compute.cores, compute.fixed_threads, pins)
    tls = _tls(config)
    _announce(config, compute, plan, sandbox)
    _announce_plugins(config, plugins)
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    status = 0
    async with compose(
        config, plugins, environ, compute, plan, sandbox, access_log, metrics, tls
    ) as server:
        try:
            async with asyncio.TaskGroup() as tasks:
                listening = [tasks.create_task(_listen(one)) for one in server.listeners]
                tasks.create_task(_report_ready(server, stop))
                tasks.create_task(_drain_at(stop, server, listening))
                if server.attested_tls is not None:
                    renewing = tasks.create_task(server.attested_tls.keep_fresh())
                    tasks.create_task(_cancel_at(stop, renewing))
                if not config.disable_system_metrics:
                    reader = SystemMetrics(
                        metrics, config.metric_time_interval, script=server.metric_script
                    )
                    tasks.create_task(reader.run(stop))
        except* OSError as failures:
            # TorchServe: the words its users search for when a port is taken.
            for failure in failures.exceptions:
                start_step(str(failure))
            status = 1
    start_step("Torchserve stopped.")
    return status


@dataclass(frozen=True, slots=True)
class Server:
    """What `compose` built, ready to serve."""

    listeners: list[Listener]
    addresses: Mapping[str, Address]  # by what is asked there
    attested_tls: AttestedTls | None
    metric_script: MetricScript | None
    registry: ModelRegistry
    snapshots: Snapshots
    loading: list[ServedModel]


async def _drain_at(
    stop: asyncio.Event, server: Server, listening: list[asyncio.Task[None]]
) -> None:
    """Stop accepting, on all ports at once; `_listen` returns when all are answered."""
    await stop.wait()
    for listener in server.listeners:
        listener.begin_drain()
    await server.snapshots.save("shutdown")
    _, busy = await asyncio.wait(listening, timeout=DRAIN_S)
    if busy:
        # Whoever still waits gets a 503 while there is time left to send it.
        await server.registry.close()


async def _cancel_at(stop: asyncio.Event, task: asyncio.Task[None]) -> None:
    await stop.wait()
    task.cancel()


@asynccontextmanager
async def compose(
    config: Config,
    plugins: Plugins,
    environ: Mapping[str, str],
    compute: Compute,
    plan: ThreadPlan,
    sandbox: SandboxPolicy,
    access_log: AccessLog,
    metrics: Metrics,
    tls: ssl.SSLContext | None,
) -> AsyncIterator[Server]:
    """Build the server from the ground up; what was built is taken down in reverse."""
    metrics_file, metrics_config = _metrics_text(config)
    async with AsyncExitStack() as stack:
        keys = _api_keys(config, stack)
        _check_attestation(config)
        source = evidence_source(config.evidence)
        store = _model_store(config, environ, sandbox, source)
        if store.key_source is not None:
            # Before the zygote, who ends every later child that nobody told it of.
            stack.enter_context(Janitor(store.unpack_roots()))
        zygote_environment = with_allocator(environ, compute.allocator_library)
        zygote = await stack.enter_async_context(ZygoteClient(zygote_environment))
        await asyncio.to_thread(store.sweep)
        ground = WorkerGround(
            zygote=zygote,
            metrics=metrics,
            worker_ids=worker_ids(config.initial_worker_port),
            sequence_keys=SequenceKeys(
                config.ts_header_key_sequence_id,
                config.ts_header_key_sequence_start,
                config.ts_header_key_sequence_end,
            ),
            environment=_worker_environment(config, environ),
            limit_max_image_pixels=config.limit_max_image_pixels,
            decode_input_request=config.decode_input_request,
            max_response_bytes=config.max_response_size,
            plan=plan,
            has_ipex=compute.uses_ipex,
            interpreters=_interpreters(environ),
            engine={None: "auto", True: "ipex", False: "torch"}[config.ipex_enable],
            sandbox=replace(sandbox, areas=_areas(store)),
            distribution_ports=DistributionPorts(config.initial_distribution_port),
            gpus=Gpus(config.gpu_count(environ)),
            metrics_file=metrics_file,
            metrics_config=metrics_config,
        )
        installer = Installer(zygote, environ, config.install_py_dep_per_model, ground.interpreters)
        evidence = source
        if source is None and config.insecure_simulated_tee:
            evidence = SimulatedEvidence()
        events = ModelEvents(evidence) if isinstance(evidence, AgentEvidence) else None
        defaults = _model_defaults(config, compute, ground.gpus.count)
        registry = ModelRegistry(store, ground, defaults, installer, events)
        stack.push_async_callback(registry.close)
        snapshots = Snapshots(
            config.snapshots,
            config.given,
            config.source,
            registry,
            hides_errors=config.is_confidential,
        )
        key, hpke_key = AttestedKey(), HpkeKey()
        attestor = _attestor(config, plugins, evidence, sandbox, key, hpke_key, registry)
        opener = RequestOpener(SealedRequests(hpke_key), key) if attestor else None
        settings = _api_settings(config, plugins, registry, snapshots, keys, attestor, opener)
        listeners = _listeners(config, registry, metrics, access_log, settings, tls)
        attested_tls = None
        if config.attested_tls and attestor is not None:
            attested_tls = AttestedTls(attestor, key)
            attested = inference_app(registry, metrics, settings)
            context = await _opened(attested_tls)
            listeners.append(
                Listener(attested, config.attested_address, _limits(config), access_log, context)
            )
        loading = await _load_models(config, store, registry)
        _observe(metrics, registry)
        script = _metric_script(config, environ, zygote, registry)
        addresses = _addresses(config)
        yield Server(listeners, addresses, attested_tls, script, registry, snapshots, loading)


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


def _api_keys(config: Config, stack: AsyncExitStack) -> ApiKeys | None:
    """TorchServe: every start makes new keys, and leaves them in its working directory."""
    if config.disable_token_authorization:
        return None
    keys = ApiKeys(Path.cwd() / KEY_FILE, config.token_expiration_min)
    stack.callback(keys.close)
    try:
        keys.open()
    except OSError as error:
        raise ConfigError(
            f"Cannot write {keys.file}: {error.strerror}. Clients find their keys there: start in "
            "a directory where it can be written, or with --disable-token-auth"
        ) from error
    start_step(f"Every API call needs a key. Key file located at {keys.file}")
    return keys


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


def _attestor(
    config: Config,
    plugins: Plugins,
    evidence: Evidence | None,
    sandbox: SandboxPolicy,
    key: AttestedKey,
    hpke_key: HpkeKey,
    registry: ModelRegistry,
) -> Attestor | None:
    """Who makes evidence for clients."""
    if evidence is None:
        return None
    digest = config_digest(config, sandbox.facts(), plugins.sources)
    tee = "simulated" if config.insecure_simulated_tee else evidence.tee
    label = "SIMULATED evidence" if config.insecure_simulated_tee else "Evidence"
    start_step(f"{label} for clients: GET /attestation, configuration {digest.hex()}")
    identity = ServerIdentity(key, hpke_key.public_key, digest, tee)
    return Attestor(evidence, identity, partial(_model_claims, registry))


def _check_attestation(config: Config) -> None:
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


def _model_claims(registry: ModelRegistry) -> list[ModelClaim]:
    return [served.claim for served in registry.all()]


async def _opened(tls: AttestedTls) -> ssl.SSLContext:
    try:
        return await tls.open()
    except EvidenceError as error:
        raise ConfigError(f"attested_tls=true: {error}") from error


def _model_store(
    config: Config,
    environ: Mapping[str, str],
    sandbox: SandboxPolicy,
    evidence: Evidence | None,
) -> ModelStore:
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
        reach=_reach(config, sandbox, evidence),
        signer=S3Signer.from_environment(environ),
    )


def _reach(config: Config, sandbox: SandboxPolicy, evidence: Evidence | None) -> Reach:
    """Where registering by url may lead."""
    services = [key_service(config.key_source)]
    if isinstance(evidence, AgentEvidence):
        services.append(evidence.service)
    closed = [(service.host, service.port) for service in services if service is not None]
    return Reach(closed, is_loopback_allowed=sandbox.level != "strict")


def _api_settings(
    config: Config,
    plugins: Plugins,
    registry: ModelRegistry,
    snapshots: Snapshots,
    keys: ApiKeys | None,
    attestor: Attestor | None,
    opener: RequestOpener | None,
) -> ApiSettings:
    return ApiSettings(
        is_model_api_enabled=config.enable_model_api,
        on_change=partial(snapshots.save, "snapshot"),
        is_open_inference_enabled=config.ts_open_inference_protocol,
        cors=Cors(
            config.cors_allowed_origin or "",
            config.cors_allowed_methods or "",
            config.cors_allowed_headers or "",
        ),
        keys=keys,
        attestor=attestor,
        inference_plugins=_plugin_endpoints("inference", config, plugins, registry),
        management_plugins=_plugin_endpoints("management", config, plugins, registry),
        opener=opener,
    )


def _limits(config: Config) -> Limits:
    return Limits(max_request_bytes=config.max_request_size)


def _listeners(
    config: Config,
    registry: ModelRegistry,
    metrics: Metrics,
    access_log: AccessLog,
    settings: ApiSettings,
    tls: ssl.SSLContext | None,
) -> list[Listener]:
    """What TorchServe has too."""
    with_metrics = config.enable_metrics_api
    if config.inference_address == config.management_address:
        shared = shared_app(registry, metrics, settings, with_metrics)
        apps = [(shared, config.inference_address)]
    else:
        apps = [
            (inference_app(registry, metrics, settings), config.inference_address),
            (management_app(registry, metrics, settings), config.management_address),
        ]
    if with_metrics:
        apps.append((metrics_app(metrics, settings), config.metrics_address))
    limits = _limits(config)
    return [
        Listener(app, address, limits, access_log, tls if address.is_tls else None)
        for app, address in apps
    ]


def _addresses(config: Config) -> Mapping[str, Address]:
    """What is asked where. TorchServe: an address of both is told as that of inference."""
    addresses = {"Inference": config.inference_address}
    if config.management_address != config.inference_address:
        addresses["Management"] = config.management_address
    if config.enable_metrics_api:
        addresses["Metrics"] = config.metrics_address
    if config.attested_tls:
        addresses["Attested inference"] = config.attested_address
    return addresses


def _hosts_of_tls(config: Config) -> set[str]:
    """Of the listeners that show the configured certificate."""
    addresses = (config.inference_address, config.management_address, config.metrics_address)
    served = addresses if config.enable_metrics_api else addresses[:2]
    return {address.host for address in served if address.is_tls}


def _tls(config: Config) -> ssl.SSLContext | None:
    """What https listeners show of themselves; None where there are none."""
    if not _hosts_of_tls(config):
        return None
    identity = _identity(config)
    config.warnings.extend(identity.warnings(datetime.now(UTC)))
    try:
        return server_context(identity.chain_pem, identity.key)
    except ssl.SSLError as error:
        raise ConfigError(f"{identity.origin}: TLS cannot use this: {error.reason}") from error


def _identity(config: Config) -> Identity:
    if config.keystore is not None:  # TorchServe: it comes before PEM files
        return read_keystore(config.keystore, config.keystore_pass, config.keystore_type)
    if config.private_key_file is not None or config.certificate_file is not None:
        return read_pem(config.private_key_file, config.certificate_file)
    hosts = _hosts_of_tls(config) | {"localhost", "127.0.0.1"}
    certificate, key = self_signed(sorted(hosts))
    config.warnings.append(
        "https with a certificate that this start made for itself, since neither keystore nor "
        "private_key_file and certificate_file are set: clients have no reason to trust it. "
        f"Its SHA-256 is {certificate.fingerprint(SHA256()).hex()}"
    )
    return Identity([certificate], key, "self-signed")


def _plugin_endpoints(
    port: Port, config: Config, plugins: Plugins, registry: ModelRegistry
) -> PluginEndpoints | None:
    endpoints = endpoints_of(port, plugins.endpoints)
    if not endpoints:
        return None
    return PluginEndpoints(
        endpoints,
        partial(server_state, registry, config.max_request_size),
        hides_errors=config.is_confidential,
    )


async def _listen(listener: Listener) -> None:
    try:
        await listener.serve()
    except SystemExit:
        # uvicorn logs why it could not bind and leaves; the roof has things to take down.
        raise OSError(f"Failed to bind to address: {listener.address}") from None
    except OSError as error:  # of a unix socket
        raise OSError(
            f"Failed to bind to address: {listener.address} ({error.strerror})"
        ) from error


async def _report_ready(server: Server, stop: asyncio.Event) -> None:
    """Say where we listen, then which models are there and how long each took."""
    for listener in server.listeners:
        await listener.wait_started()
    for label, address in server.addresses.items():
        start_step(f"{label} API bind to: {address}")
    await server.snapshots.save("startup")
    start_step("Model server started.")
    started = monotonic()
    for served in server.loading:
        outcomes = [worker.first_outcome for worker in served.workers]
        if not outcomes:
            continue
        stopping = asyncio.ensure_future(stop.wait())
        loaded = asyncio.ensure_future(asyncio.wait(outcomes))
        await asyncio.wait({loaded, stopping}, return_when=asyncio.FIRST_COMPLETED)
        stopping.cancel()
        loaded.cancel()
        if stop.is_set():
            return
        ready = [worker.load_s for worker in served.workers if worker.load_s is not None]
        spec = served.spec
        if ready:
            start_step(
                f"Model {spec.name} {spec.version}: {len(ready)} of {len(outcomes)} workers"
                f" ready after {monotonic() - started:.1f} s, slowest load {max(ready):.2f} s"
            )
            # Each worker decides for itself, and on a noisy machine they may differ.
            for engine in sorted({worker.engine for worker in served.workers if worker.engine}):
                start_step(f"Model {spec.name} {spec.version} runs by {engine}")


def _announce(config: Config, compute: Compute, plan: ThreadPlan, sandbox: SandboxPolicy) -> None:
    start_step(f"Torchkeep {version('torchkeep')}, answering as TorchServe 0.12.0")
    start_step(f"Configuration: {config.source or 'defaults'}")
    start_step(f"Engine: {compute.engine}, allocator {compute.allocator}")
    workers = _startup_workers(config, compute)
    start_step(f"Plan: {plan.describe(workers)}, for a model that asks for no number itself")
    if config.insecure_simulated_tee:
        start_step("Warning: SIMULATED TEE (insecure_simulated_tee=true): it protects nothing")
    elif (config.key_source or "").startswith("kbs:") and config.evidence is None:
        start_step("Warning: no evidence to show to the key broker: no sealed model will load")
    ours = (*_exposure(config), *_any_url(config))
    for warning in (*config.warnings, *ours, *compute.warnings, *sandbox.warnings):
        start_step(f"Warning: {warning}")
    if config.in_vain:
        start_step(f"No effect: {', '.join(config.in_vain)}")
    if config.no_effect:
        start_step(f"No effect yet: {', '.join(config.no_effect)}")
    start_step(f"Not served yet: {', '.join(config.not_served)}")


def _announce_plugins(config: Config, plugins: Plugins) -> None:
    if plugins.sources and config.is_confidential:
        start_step(
            "Warning: PLUGINS run inside the server, with its keys and everybody's requests: "
            "make sure that you know each of those listed below"
        )
    for source in plugins.sources:
        start_step(f"Plugin {source}")
    for found in plugins.endpoints:
        one = found.endpoint
        note = ", in place of the server's own" if one.replaces_builtin else ""
        start_step(f"Plugin endpoint {' '.join(one.methods)} /{one.path}, {one.port} port{note}")
    if plugins.store_class is not None and config.snapshots is not None:
        start_step(f"Plugin keeps the snapshots: {config.snapshots}")


def _exposure(config: Config) -> list[str]:
    """The risk that ShellTorch was about: whoever could reach this port ran code on the machine."""
    address = config.management_address
    if address.is_local or not config.disable_token_authorization:
        return []
    power = "register a model, and a model is code that runs here, or unregister and scale yours"
    if not config.enable_model_api:
        power = "scale your models down to nothing"
    return [
        f"ANYBODY who can reach the management API at {address} can {power}: it is open to other "
        "machines and asks for no key. Set management_address to http://127.0.0.1:8081, or do not "
        "disable token authorization"
    ]


def _any_url(config: Config) -> list[str]:
    """In TorchServe's words, where somebody could register a model by url."""
    is_limited = "allowed_urls" in config.given or config.allowed_urls != Config().allowed_urls
    if is_limited or not config.enable_model_api:
        return []
    return [
        "Your torchserve instance can access any URL to load models. When deploying to production, "
        "make sure to limit the set of allowed_urls in config.properties"
    ]


def _startup_workers(config: Config, compute: Compute) -> int:
    if config.debug:
        return 1
    return config.default_workers_per_model or compute.cores.logical_count


def _model_defaults(config: Config, compute: Compute, gpus: int) -> ModelDefaults:
    return ModelDefaults(
        response_timeout_s=config.default_response_timeout,
        startup_timeout_s=config.default_startup_timeout,
        job_queue_size=config.job_queue_size,
        workers_at_register=config.default_workers_per_model or 0,
        # TorchServe: one worker for each GPU, where there are any
        workers_at_startup=config.default_workers_per_model
        or gpus
        or _startup_workers(config, compute),
        handler=config.default_service_handler,
        envelope=config.service_envelope or "",
        models=config.models,
        has_time_limits=not config.debug,
    )


def _worker_environment(config: Config, environ: Mapping[str, str]) -> Callable[[], dict[str, str]]:
    """What every worker gets of our environment: TorchServe's block list is a regex of names."""
    hidden = re.compile(config.blacklist_env_vars) if config.blacklist_env_vars else None
    visible = {n: v for n, v in environ.items() if hidden is None or not hidden.fullmatch(n)}
    visible["TS_DECODE_INPUT_REQUEST"] = str(config.decode_input_request).lower()
    # Handlers that optimise their own model ask for these.
    visible["TS_IPEX_ENABLE"] = str(config.ipex_enable or False).lower()
    visible["TS_IPEX_GPU_ENABLE"] = str(config.ipex_gpu_enable).lower()
    # TorchServe's workers hear nothing of these: `context.get_sequence_id` then finds no id.
    visible.setdefault("TS_REQUEST_SEQUENCE_ID", config.ts_header_key_sequence_id)
    visible.setdefault("TS_REQUEST_SEQUENCE_START", config.ts_header_key_sequence_start)
    visible.setdefault("TS_REQUEST_SEQUENCE_END", config.ts_header_key_sequence_end)
    return lambda: dict(visible)


def _sandbox_policy(config: Config) -> SandboxPolicy:
    keys = [path for path in (config.private_key_file, config.keystore) if path is not None]
    if not config.disable_token_authorization:
        keys.append(Path.cwd() / KEY_FILE)
    kind, _, where = (config.key_source or "").partition(":")
    if kind == "file":
        keys.append(Path(where))
    return sandbox_policy(
        config.sandbox,
        "network" in config.sandbox_allow,
        config.handler_log,
        keys,
        # A TEE, be it simulated, is there to keep secrets: its handlers are strangers as well.
        has_key_service=config.is_confidential,
    )


def _areas(store: ModelStore) -> list[Path]:
    """Where other models may lie; without a source of keys, none of them is in memory."""
    roots = [store.area.root] if store.key_source is None else store.unpack_roots()
    return [UnpackArea(root).models for root in roots]


def _unpack_root(environ: Mapping[str, str]) -> Path:
    """Below it, archives are unpacked. TorchServe: TEMP, where it is set.

    Otherwise not /tmp: what a handler makes beside the way to a hidden directory it cannot
    read again (see `everything_but`), and there are handlers that write to /tmp.
    """
    named = environ.get("TEMP") or environ.get("TMPDIR")
    if not named and os.access("/var/tmp", os.W_OK | os.X_OK):
        named = "/var/tmp"
    return Path(named or tempfile.gettempdir())


def _interpreters(environ: Mapping[str, str]) -> dict[str, str]:
    """TorchServe: the runtime `python3` is the command of that name, whichever Python it is."""
    found = shutil.which("python3", path=environ.get("PATH"))
    ours = os.path.dirname(sys.executable)
    if found is None or os.path.samefile(os.path.dirname(found), ours):
        return {}
    return {"python3": found}


def _metrics(config: Config, logs: Logs | None) -> Metrics:
    """What metrics.yaml declares; TorchServe: a file that cannot be used leaves no metrics."""
    path = config.metrics_config or _SHIPPED_METRICS
    try:
        declared = parse_metrics_config(path.read_text("utf-8"))
    except (OSError, UnicodeDecodeError, MetricsConfigError) as error:
        log.error("Failed to load metrics configuration: %s: %s", path, error)
        declared = MetricsConfig()
    return Metrics(
        declared=declared,
        mode=cast(Mode, config.metrics_mode),
        detects_model_metrics=config.model_metrics_auto_detect,
        logs=MetricLogs(logs.ts_metrics, logs.model_metrics) if logs else None,
    )


def _metric_script(
    config: Config, environ: Mapping[str, str], zygote: ZygoteClient, registry: ModelRegistry
) -> MetricScript | None:
    """The user's own script, which reads the machine in place of the server."""
    setting = config.system_metrics_cmd
    if not setting or config.disable_system_metrics:
        return None
    home = config.model_server_home or Path.cwd()
    command = script_of(setting, home)
    if config.is_confidential or command is None:
        reason = f"{home} holds no such script" if command is None else "not beside secrets"
        start_step(
            f"Warning: system_metrics_cmd={setting} is not run ({reason}): the server reads "
            "processors, memory and disk itself"
        )
        return None
    return MetricScript(
        zygote,
        command,
        home,
        dict(environ),
        lambda: [w.pid for served in registry.all() for w in served.workers if w.pid],
    )


def _metrics_text(config: Config) -> tuple[str, str]:
    """Path and text of the user's metrics.yaml, for the workers, who complain for themselves."""
    if config.metrics_config is None:
        return "", ""
    try:
        text = config.metrics_config.read_text("utf-8", "replace")
    except OSError:
        text = ""
    return str(config.metrics_config), text


def _observe(metrics: Metrics, registry: ModelRegistry) -> None:
    """Gauges that are read at each scrape."""
    labels = ("model_name", "model_version")

    def each(
        reading: Callable[[ServedModel], float],
    ) -> Callable[[], list[tuple[tuple[str, ...], float]]]:
        return lambda: [((s.spec.name, s.spec.version), reading(s)) for s in registry.all()]

    metrics.observe("torchkeep_queue_length", "Count", labels, each(lambda s: len(s.queue)))
    metrics.observe("torchkeep_workers", "Count", labels, each(lambda s: len(s.workers)))
    metrics.observe(
        "torchkeep_workers_ready",
        "Count",
        labels,
        each(lambda s: sum(worker.is_ready for worker in s.workers)),
    )


if __name__ == "__main__":
    sys.exit(start_stop.server_process(None, serve))
