"""A handler that takes its tools from `ts`: timers, metrics, errors, class and label helpers."""

import importlib
import json
import logging
import os
import time

import torch
import ts
from ts.context import Context
from ts.handler_utils.timer import timed
from ts.handler_utils.utils import import_class
from ts.metrics.dimension import Dimension
from ts.metrics.metric_type_enum import MetricTypes
from ts.service import PredictionException as ServicePredictionException
from ts.torch_handler.base_handler import PROFILER_AVAILABLE, BaseHandler
from ts.torch_handler.vision_handler import VisionHandler
from ts.utils.util import (
    PredictionException,
    get_yaml_config,
    list_classes_from_module,
    load_label_mapping,
    map_class_to_label,
)

logger = logging.getLogger(__name__)


class ToolboxHandler(BaseHandler):
    def initialize(self, ctx: Context):
        properties = ctx.system_properties
        model_dir = properties["model_dir"]
        self.context = ctx
        self.manifest = ctx.manifest
        self.model_yaml_config = ctx.model_yaml_config
        self.device = torch.device("cpu")
        module = importlib.import_module(self.manifest["model"]["modelFile"].split(".")[0])
        (self.model_class,) = list_classes_from_module(module)
        self.same_class = import_class("FlowerModel", module_prefix="flower_model")
        self.model = self.model_class()
        weights = os.path.join(model_dir, self.manifest["model"]["serializedFile"])
        self.model.load_state_dict(torch.load(weights, map_location=self.device))
        self.model.eval()
        self.mapping = load_label_mapping(os.path.join(model_dir, "index_to_name.json"))
        config = get_yaml_config(os.path.join(model_dir, "model-config.yaml"))
        self.limit = config["handler"]["limit"]
        self.calls = ctx.metrics.add_metric_to_cache(
            metric_name="ToolboxCalls",
            unit="count",
            dimension_names=["ModelName", "Level"],
            metric_type=MetricTypes.COUNTER,
        )
        self.initialized = True

    @timed
    def preprocess(self, data):
        rows = []
        for row in data:
            values = row.get("data") or row.get("body")
            if isinstance(values, (bytes, bytearray)):
                values = json.loads(values)
            if len(values) != 4:
                raise PredictionException("four measures are expected", 422)
            if max(values) > self.limit:
                raise ServicePredictionException("no flower is that large", 413)
            rows.append(values)
        return torch.tensor(rows, dtype=torch.float32)

    @timed
    def inference(self, data, *args, **kwargs):
        start = time.time()
        with torch.inference_mode():
            output = self.model(data, *args, **kwargs)
        metrics = self.context.metrics
        dimensions = [Dimension("Step", "inference")]
        metrics.add_counter("ToolboxRows", len(data), None, dimensions)
        metrics.add_time("ToolboxTime", (time.time() - start) * 1000, None, "ms", dimensions)
        self.calls.add_or_update(value=1, dimension_values=[self.context.model_name, "Model"])
        return output

    @timed
    def postprocess(self, data):
        probabilities = torch.softmax(data, dim=1)
        values, indices = torch.topk(probabilities, 2)
        return map_class_to_label(values.tolist(), self.mapping, indices.tolist())

    def describe_handle(self):
        return {
            "model": self.model_class.__name__,
            "is_same_class": self.same_class is self.model_class,
            "is_profiler_there": PROFILER_AVAILABLE,
            "bases": [base.__name__ for base in VisionHandler.__mro__[1:3]],
            "errors_are_one": PredictionException is ServicePredictionException,
            "ts": ts.__version__,
        }
