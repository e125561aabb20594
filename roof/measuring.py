"""Metrics: what is declared, what is observed, and who reads the machine."""

import logging
from collections.abc import Callable
from pathlib import Path
from typing import cast

from torchkeep.frontend.metric_script import MetricScript, script_of
from torchkeep.frontend.metrics import MetricLogs, Metrics, Mode
from torchkeep.frontend.metrics_config import (
    MetricsConfig,
    MetricsConfigError,
    parse_metrics_config,
)
from torchkeep.frontend.registry import ModelRegistry
from torchkeep.frontend.served_model import ServedModel
from torchkeep.frontend.zygote_client import ZygoteClient
from torchkeep.roof.plan import Plan
from torchkeep.roof.shipped import METRICS_YAML
from torchkeep.runtime.config import Config
from torchkeep.runtime.logs import Logs, start_step

log = logging.getLogger("torchkeep.runtime")


def metrics_file(config: Config) -> Path:
    """Where metrics are declared: the user's metrics.yaml, or ours."""
    return config.metrics_config or METRICS_YAML


def metrics(config: Config, logs: Logs | None) -> Metrics:
    """What metrics.yaml declares; TorchServe: a file that cannot be used leaves no metrics."""
    path = metrics_file(config)
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


def metric_script(plan: Plan, zygote: ZygoteClient, registry: ModelRegistry) -> MetricScript | None:
    """The user's own script, which reads the machine in place of the server."""
    config = plan.config
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
        dict(plan.environ),
        lambda: [w.pid for served in registry.all() for w in served.workers if w.pid],
    )


def observe(metrics: Metrics, registry: ModelRegistry) -> None:
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
