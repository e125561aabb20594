"""The lines of a start that tell what was decided, and what to be warned of."""

from importlib.metadata import version

from torchkeep.roof.plan import Plan
from torchkeep.roof.workers import startup_workers
from torchkeep.runtime.config import Config
from torchkeep.runtime.logs import start_step
from torchkeep.runtime.plugin_loading import Plugins


def announce(plan: Plan) -> None:
    config, compute = plan.config, plan.compute
    start_step(f"Torchkeep {version('torchkeep')}, answering as TorchServe 0.12.0")
    start_step(f"Configuration: {config.source or 'defaults'}")
    start_step(f"Engine: {compute.engine}, allocator {compute.allocator}")
    workers = startup_workers(config, compute)
    start_step(
        f"Plan: {plan.threads.describe(workers)}, for a model that asks for no number itself"
    )
    if config.insecure_simulated_tee:
        start_step("Warning: SIMULATED TEE (insecure_simulated_tee=true): it protects nothing")
    elif (config.key_source or "").startswith("kbs:") and config.evidence is None:
        start_step("Warning: no evidence to show to the key broker: no sealed model will load")
    ours = (*exposure(config), *any_url(config))
    for warning in (*config.warnings, *ours, *compute.warnings, *plan.sandbox.warnings):
        start_step(f"Warning: {warning}")
    if config.in_vain:
        start_step(f"No effect: {', '.join(config.in_vain)}")
    if config.no_effect:
        start_step(f"No effect yet: {', '.join(config.no_effect)}")
    start_step(f"Not served yet: {', '.join(config.not_served)}")
    _announce_plugins(config, plan.plugins)


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


def exposure(config: Config) -> list[str]:
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


def any_url(config: Config) -> list[str]:
    """In TorchServe's words, where somebody could register a model by url."""
    is_limited = "allowed_urls" in config.given or config.allowed_urls != Config().allowed_urls
    if is_limited or not config.enable_model_api:
        return []
    return [
        "Your torchserve instance can access any URL to load models. When deploying to production, "
        "make sure to limit the set of allowed_urls in config.properties"
    ]
