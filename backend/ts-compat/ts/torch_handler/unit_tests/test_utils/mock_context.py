"""A context for tests that load a handler without a server."""

import importlib
import os
import uuid
from typing import Any

from ts.metrics.metrics_store import MetricsStore
from ts.utils.util import get_yaml_config


class MockContext:
    """As much of a context as default handlers ask for; set `explain` to have them explain."""

    def __init__(
        self,
        model_pt_file: str | None = "model.pt",
        model_dir: str = "ts/torch_handler/unit_tests/models/tmp",
        model_file: str | None = "model.py",
        gpu_id: str | None = "0",
        model_name: str = "mnist",
        model_yaml_config_file: str | None = None,
    ) -> None:
        self.manifest: dict[str, Any] = {"model": {}}
        if model_pt_file:
            self.manifest["model"]["serializedFile"] = model_pt_file
        if model_file:
            self.manifest["model"]["modelFile"] = model_file
        self.system_properties: dict[str, Any] = {"model_dir": model_dir}
        if gpu_id and importlib.import_module("torch").cuda.is_available():
            self.system_properties["gpu_id"] = gpu_id
        self.explain = False
        self.failed: dict[int, Exception] = {}
        self.metrics = MetricsStore({0: str(uuid.uuid4())}, model_name)
        self.model_yaml_config: dict[str, Any] = {}
        if model_yaml_config_file:
            path = os.path.join(model_dir, model_yaml_config_file)
            self.model_yaml_config = get_yaml_config(path)

    def fail(self, idx: int, error: Exception) -> None:
        """As `Context.fail`, an addition of Torchkeep; `failed` tells a test what was failed."""
        self.failed[idx] = error

    def get_request_header(self, idx: Any, exp: str) -> bool:
        # TorchServe: true whatever header is asked for, and not for request 0
        return bool(idx and self.explain)
