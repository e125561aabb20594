"""The configuration as TorchServe logs it at its start: what people search a log for."""

import json
import os
import re
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

from torchkeep.runtime.command_line import TORCHSERVE_VERSION
from torchkeep.runtime.config import Config


def config_dump(config: Config, environ: Mapping[str, str], metrics_file: Path) -> str:
    """One log record of many lines, the first of which is empty, in TorchServe's order."""
    rows = _rows(config, environ, metrics_file)
    return "".join(f"\n{label}: {_text(value)}" for label, value in rows)


def _rows(
    config: Config, environ: Mapping[str, str], metrics_file: Path
) -> Iterator[tuple[str, object]]:
    yield "Torchserve version", TORCHSERVE_VERSION
    yield "TS Home", config.model_server_home or Path(__file__).resolve().parent.parent
    yield "Current directory", Path.cwd()
    yield "Temp directory", environ.get("TEMP") or tempfile.gettempdir()
    yield "Metrics config path", metrics_file
    yield "Number of GPUs", config.number_of_gpu
    yield "Number of CPUs", os.cpu_count()
    yield "Max heap size", None  # Java's
    yield "Python executable", sys.executable
    yield "Config file", config.source
    yield "Inference address", config.inference_address
    yield "Management address", config.management_address
    yield "Metrics address", config.metrics_address
    yield "Model Store", config.model_store
    yield "Initial Models", ",".join(map(_without_secrets, config.load_models))
    yield "Log dir", Path(environ.get("LOG_LOCATION") or "logs").absolute()
    yield "Metrics dir", Path(environ.get("METRICS_LOCATION") or "logs").absolute()
    yield "Netty threads", config.number_of_netty_threads
    yield "Netty client threads", config.netty_client_threads
    yield "Default workers per model", config.default_workers_per_model
    yield "Blacklist Regex", config.blacklist_env_vars
    yield "Maximum Response Size", config.max_response_size
    yield "Maximum Request Size", config.max_request_size
    yield "Limit Maximum Image Pixels", config.limit_max_image_pixels
    yield "Prefer direct buffer", config.prefer_direct_buffer
    yield "Allowed Urls", f"[{', '.join(config.allowed_urls)}]"
    yield "Custom python dependency for model allowed", config.install_py_dep_per_model
    yield "Enable metrics API", config.enable_metrics_api
    yield "Metrics mode", config.metrics_mode.upper()
    yield "Disable system metrics", config.disable_system_metrics
    yield "Workflow Store", config.workflow_store
    yield "CPP log config", config.cpp_log_config
    yield "Model config", json.dumps(config.models) if config.models else None
    yield "System metrics command", config.system_metrics_cmd or "default"
    yield "Model API enabled", config.enable_model_api


def _without_secrets(model: str) -> str:
    """A presigned URL carries its signature in the query, some carry a password before @."""
    return re.sub(r"//[^/@]*@", "//", model.partition("?")[0])


def _text(value: object) -> str:
    match value:
        case None | "":
            return "N/A"
        case bool():
            return str(value).lower()
    return str(value)
