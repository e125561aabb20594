"""Warm-up and engine through a whole server, from model-config.yaml to the start-up lines."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.torch

MODEL = """
import torch
class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = torch.nn.Sequential(*(torch.nn.Linear(64, 64) for _ in range(20)))
    def forward(self, x):
        return self.layers(x)
"""

HANDLER = """
import os
import torch
from ts.torch_handler.base_handler import BaseHandler
class Rows(BaseHandler):
    seen = 0
    def preprocess(self, data):
        Rows.seen += 1
        return torch.tensor([row["body"] for row in data], dtype=torch.float32)
    def postprocess(self, data):
        return [{"sum": float(row.sum()), "seen": Rows.seen,
                 "ipex": os.environ["TS_IPEX_ENABLE"], "gpu": os.environ["TS_IPEX_GPU_ENABLE"]}
                for row in data]
"""
ROW = [round(0.01 * number, 2) for number in range(64)]
RAISING = HANDLER.replace(
    "    return torch",
    "    if Rows.seen == 1: raise ValueError('not yet')\n        return torch",
)


def write_model(store: Path, name: str, config: str, handler: str = HANDLER) -> None:
    model_dir = store / name
    (model_dir / "MAR-INF").mkdir(parents=True)
    (model_dir / f"{name}_handler.py").write_text(handler)
    (model_dir / f"{name}_net.py").write_text(MODEL)
    (model_dir / "row.json").write_text(json.dumps(ROW))
    (model_dir / "index_to_name.json").write_text("{}")
    (model_dir / "model-config.yaml").write_text(f"minWorkers: 1\nmaxWorkers: 1\n{config}\n")
    manifest = {
        "modelName": name,
        "handler": f"{name}_handler.py",
        "modelFile": f"{name}_net.py",
        "modelVersion": "1.0",
        "configFile": "model-config.yaml",
    }
    text = json.dumps({"runtime": "python", "model": manifest})
    (model_dir / "MAR-INF/MANIFEST.json").write_text(text)


def test_models_are_warmed_up_before_they_are_ready(
    tmp_path: Path, server_factory: Callable[..., Any]
) -> None:
    store = tmp_path / "store"
    configs = {
        "by_file": "warmup: {file: row.json}",
        "by_shape": "warmup: {shape: [1, 64]}\nengine: {name: torch}",
        "off": "warmup: {shape: [1, 64]}\nengine: {name: eager}",
        "wrong": "warmup: {shape: [1, many]}",
        "outside": "warmup: {file: ../by_file/row.json}",
        "misfit": "warmup: {shape: [1, 3]}",
    }
    for name, config in configs.items():
        write_model(store, name, config)
    write_model(store, "raising", "warmup: {file: row.json}", RAISING)
    names = [*configs, "raising"]
    server = server_factory(names, store=store)
    server.wait_until_ready(*names)

    answers = {}
    for name in names:
        headers = {"Content-Type": "application/json"}
        status, _, body = server.request("POST", f"/predictions/{name}", json.dumps(ROW), headers)
        assert status == 200, name
        answers[name] = json.loads(body)
    assert answers["by_file"]["seen"] == 5  # once to learn its input, three times, and ours
    assert answers["by_shape"]["seen"] == 1
    assert answers["raising"]["seen"] == 2
    assert {(one["ipex"], one["gpu"]) for one in answers.values()} == {("false", "false")}
    server.wait_for_lines(
        "Model by_file 1.0 runs by ",
        "Model off 1.0 runs by eager, as configured",
        "Model misfit 1.0 runs by eager: it fails on the sample: RuntimeError",
        "model wrong: model-config.yaml: warmup is ignored: {'shape': [1, 'many']}",
        "model outside: model-config.yaml: warmup is ignored",
        "expected a file of the archive",
        "raising_1.0-stderr MODEL_LOG - the warm-up request failed: 503 Prediction failed",
    )


@pytest.mark.parametrize("text", ["true", "false"])
def test_ipex_enable_reaches_workers(
    tmp_path: Path, server_factory: Callable[..., Any], text: str
) -> None:
    store = tmp_path / "store"
    write_model(store, "rows", "warmup: {shape: [1, 64]}")
    server = server_factory(["rows"], store=store, config={"ipex_enable": text})
    server.wait_until_ready("rows")
    headers = {"Content-Type": "application/json"}
    _, _, body = server.request("POST", "/predictions/rows", json.dumps(ROW), headers)
    assert json.loads(body)["ipex"] == text
    log = server.wait_for_lines("Model rows 1.0 runs by ")
    assert "No effect yet" not in log
    if text == "false":
        assert "runs by ipex" not in log
