"""What listens where, and who is let in."""

import ssl
from collections.abc import Mapping
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path

from starlette.types import ASGIApp

from torchkeep.frontend.api_keys import ApiKeys
from torchkeep.frontend.app import (
    ApiSettings,
    inference_app,
    management_app,
    metrics_app,
    shared_app,
)
from torchkeep.frontend.attestation import Attestor
from torchkeep.frontend.http_protocol import Limits
from torchkeep.frontend.listener import Listener
from torchkeep.frontend.plugin_endpoints import PluginEndpoints, endpoints_of, server_state
from torchkeep.frontend.registry import ModelRegistry
from torchkeep.frontend.request_opener import RequestOpener
from torchkeep.frontend.responses import Cors
from torchkeep.frontend.snapshots import Snapshots
from torchkeep.roof.plan import Plan
from torchkeep.runtime.address import Address
from torchkeep.runtime.config import Config
from torchkeep.runtime.errors import ConfigError
from torchkeep.runtime.key_file import key_file
from torchkeep.runtime.logs import start_step
from torchkeep.runtime.plugins import Port


def api_keys(config: Config, stack: AsyncExitStack) -> ApiKeys | None:
    """TorchServe: every start makes new keys, and leaves them in its working directory."""
    if config.disable_token_authorization:
        return None
    keys = ApiKeys(key_file(Path.cwd()), config.token_expiration_min)
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


def api_settings(
    plan: Plan,
    registry: ModelRegistry,
    snapshots: Snapshots,
    keys: ApiKeys | None,
    attestor: Attestor | None,
    opener: RequestOpener | None,
) -> ApiSettings:
    config = plan.config
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
        inference_plugins=_plugin_endpoints("inference", plan, registry),
        management_plugins=_plugin_endpoints("management", plan, registry),
        opener=opener,
    )


def listeners(plan: Plan, registry: ModelRegistry, settings: ApiSettings) -> list[Listener]:
    """What TorchServe has, too."""
    config, metrics = plan.config, plan.metrics
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
    return [_listener(plan, app, at, plan.tls if at.is_tls else None) for app, at in apps]


def attested_listener(
    plan: Plan, registry: ModelRegistry, settings: ApiSettings, tls: ssl.SSLContext
) -> Listener:
    """Inference once more, for clients who verify the certificate."""
    app = inference_app(registry, plan.metrics, settings)
    return _listener(plan, app, plan.config.attested_address, tls)


def _listener(plan: Plan, app: ASGIApp, address: Address, tls: ssl.SSLContext | None) -> Listener:
    limits = Limits(max_request_bytes=plan.config.max_request_size)
    return Listener(app, address, limits, plan.access_log, tls)


def addresses(config: Config) -> Mapping[str, Address]:
    """By what is asked there. TorchServe: an address of both is told as that of inference."""
    addresses = {"Inference": config.inference_address}
    if config.management_address != config.inference_address:
        addresses["Management"] = config.management_address
    if config.enable_metrics_api:
        addresses["Metrics"] = config.metrics_address
    if config.attested_tls:
        addresses["Attested inference"] = config.attested_address
    return addresses


def _plugin_endpoints(port: Port, plan: Plan, registry: ModelRegistry) -> PluginEndpoints | None:
    endpoints = endpoints_of(port, plan.plugins.endpoints)
    if not endpoints:
        return None
    return PluginEndpoints(
        endpoints,
        partial(server_state, registry, plan.config.max_request_size),
        hides_errors=plan.config.is_confidential,
    )
