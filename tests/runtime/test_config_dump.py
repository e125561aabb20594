"""The configuration in the log, as TorchServe 0.12 wrote it for the same file."""

from pathlib import Path

import pytest

from torchkeep.runtime.command_line import Flags
from torchkeep.runtime.config import load_config
from torchkeep.runtime.config_dump import config_dump

# As the real server wrote it; only what tells of its machine and of Java is left out.
TORCHSERVES = """
Torchserve version: 0.12.0
TS Home: ...
Current directory: {here}
Temp directory: {here}/tmp
Metrics config path: {here}/metrics.yaml
Number of GPUs: 0
Number of CPUs: ...
Max heap size: ...
Python executable: ...
Config file: config.properties
Inference address: http://127.0.0.1:18500
Management address: http://127.0.0.1:18501
Metrics address: http://127.0.0.1:18502
Model Store: {here}/store
Initial Models: m=m.mar
Log dir: {here}/logs
Metrics dir: {here}/mlogs
Netty threads: 0
Netty client threads: 0
Default workers per model: 1
Blacklist Regex: N/A
Maximum Response Size: 6553500
Maximum Request Size: 6553500
Limit Maximum Image Pixels: true
Prefer direct buffer: false
Allowed Urls: [file://.*|http(s)?://.*]
Custom python dependency for model allowed: false
Enable metrics API: true
Metrics mode: LOG
Disable system metrics: false
Workflow Store: {here}/store
CPP log config: N/A
Model config: N/A
System metrics command: default
Model API enabled: true"""
OF_THE_MACHINE = ("TS Home", "Number of CPUs", "Max heap size", "Python executable")


def test_the_dump_is_torchserves_line_by_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "config.properties").write_text(
        "inference_address=http://127.0.0.1:18500\n"
        "management_address=http://127.0.0.1:18501\n"
        "metrics_address=http://127.0.0.1:18502\n"
        "default_workers_per_model=1\n"
        "metrics_config=metrics.yaml\n"
        "keystore_pass=never-in-a-log\n"
    )
    environ = {
        "TEMP": str(tmp_path / "tmp"),
        "LOG_LOCATION": "logs",
        "METRICS_LOCATION": str(tmp_path / "mlogs"),
    }
    flags = Flags(
        model_store=str(tmp_path / "store"),
        models=("m=m.mar",),
        enable_model_api=True,
        no_config_snapshots=True,
    )
    config = load_config(flags, environ, tmp_path)
    assert config.metrics_config is not None
    dump = config_dump(config, environ, config.metrics_config)
    lines = [
        f"{line.partition(': ')[0]}: ..." if line.startswith(OF_THE_MACHINE) else line
        for line in dump.splitlines()
    ]
    assert lines == TORCHSERVES.format(here=tmp_path).splitlines()
    assert "never-in-a-log" not in dump


def test_urls_of_models_are_told_without_signature_and_password(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    flags = Flags(models=("m=https://me:secret@host/a.mar?sig=secret", "b.mar"))
    dump = config_dump(load_config(flags, {}, tmp_path), {}, tmp_path)
    assert "\nInitial Models: m=https://host/a.mar,b.mar\n" in dump
    assert "secret" not in dump
