"""What workers start with: how many, with which environment, and how confined."""

import os
import re
import shutil
import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

from torchkeep.frontend.gpus import Gpus
from torchkeep.frontend.model_spec import ModelDefaults
from torchkeep.frontend.parallel import DistributionPorts
from torchkeep.frontend.sandbox_policy import SandboxPolicy, sandbox_policy
from torchkeep.frontend.sequences import SequenceKeys
from torchkeep.frontend.served_model import WorkerGround, worker_ids
from torchkeep.frontend.zygote_client import ZygoteClient
from torchkeep.modelstore.store import ModelStore
from torchkeep.modelstore.unpack_area import UnpackArea
from torchkeep.roof.plan import Plan
from torchkeep.runtime.compute import Compute
from torchkeep.runtime.config import Config
from torchkeep.runtime.key_file import key_file


def worker_ground(plan: Plan, zygote: ZygoteClient, store: ModelStore) -> WorkerGround:
    """What all workers have in common."""
    config, environ = plan.config, plan.environ
    metrics_file, metrics_config = _metrics_text(config)
    return WorkerGround(
        zygote=zygote,
        metrics=plan.metrics,
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
        plan=plan.threads,
        has_ipex=plan.compute.uses_ipex,
        interpreters=_interpreters(environ),
        engine={None: "auto", True: "ipex", False: "torch"}[config.ipex_enable],
        sandbox=replace(plan.sandbox, areas=_areas(store)),
        distribution_ports=DistributionPorts(config.initial_distribution_port),
        gpus=Gpus(config.gpu_count(environ)),
        metrics_file=metrics_file,
        metrics_config=metrics_config,
    )


def startup_workers(config: Config, compute: Compute) -> int:
    """How many a model of the start has, where neither it nor a GPU asks for another number."""
    if config.debug:
        return 1
    return config.default_workers_per_model or compute.cores.logical_count


def model_defaults(config: Config, compute: Compute, gpus: int) -> ModelDefaults:
    return ModelDefaults(
        response_timeout_s=config.default_response_timeout,
        startup_timeout_s=config.default_startup_timeout,
        job_queue_size=config.job_queue_size,
        workers_at_register=config.default_workers_per_model or 0,
        # TorchServe: one worker for each GPU, where there are any
        workers_at_startup=config.default_workers_per_model
        or gpus
        or startup_workers(config, compute),
        handler=config.default_service_handler,
        envelope=config.service_envelope or "",
        models=config.models,
        has_time_limits=not config.debug,
    )


def configured_sandbox(config: Config) -> SandboxPolicy:
    """How confined every model is, and what all of them must not see."""
    keys = [path for path in (config.private_key_file, config.keystore) if path is not None]
    if not config.disable_token_authorization:
        keys.append(key_file(Path.cwd()))
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
    rules = store.rules
    roots = [rules.area.root] if store.key_source is None else rules.unpack_roots()
    return [UnpackArea(root).models for root in roots]


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


def _interpreters(environ: Mapping[str, str]) -> dict[str, str]:
    """TorchServe: the runtime `python3` is the command of that name, whichever Python it is."""
    found = shutil.which("python3", path=environ.get("PATH"))
    ours = os.path.dirname(sys.executable)
    if found is None or os.path.samefile(os.path.dirname(found), ours):
        return {}
    return {"python3": found}


def _metrics_text(config: Config) -> tuple[str, str]:
    """Path and text of the user's metrics.yaml, for the workers, who complain for themselves."""
    if config.metrics_config is None:
        return "", ""
    try:
        text = config.metrics_config.read_text("utf-8", "replace")
    except OSError:
        text = ""
    return str(config.metrics_config), text
