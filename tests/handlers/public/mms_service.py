"""A service of Multi Model Server's kind: no base class, one object, one function `handle`."""

import json
import logging
import os

import torch

from flower_model import FlowerModel

logger = logging.getLogger(__name__)


class FlowerService(object):
    def __init__(self):
        self.error = None
        self.initialized = False
        self.model = None
        self.labels = None
        self.device = None
        self._context = None
        self._batch_size = 0

    def initialize(self, context):
        self._context = context
        self._batch_size = context.system_properties["batch_size"]
        properties = context.system_properties
        gpu_id = properties.get("gpu_id")
        use_gpu = torch.cuda.is_available() and gpu_id is not None
        self.device = torch.device("cuda:" + str(gpu_id) if use_gpu else "cpu")
        model_dir = properties.get("model_dir")
        weights = os.path.join(model_dir, context.manifest["model"]["serializedFile"])
        if not os.path.isfile(weights):
            raise RuntimeError("Missing the model definition file")
        self.model = FlowerModel()
        self.model.load_state_dict(torch.load(weights, map_location=self.device))
        self.model.to(self.device).eval()
        with open(os.path.join(model_dir, "signature.json")) as signature:
            self.labels = json.load(signature)["outputs"][0]["labels"]
        logger.info("%s is loaded for batches of %s", weights, self._batch_size)
        self.initialized = True

    def preprocess(self, batch):
        assert len(batch) <= self._batch_size, "Invalid input batch size: {}".format(len(batch))
        rows = []
        for row in batch:
            values = row.get("data")
            if values is None:
                values = row.get("body")
            if isinstance(values, (bytes, bytearray)):
                values = json.loads(values.decode("utf-8"))
            if isinstance(values, dict):
                values = values["instances"][0]
            rows.append([float(value) for value in values])
        return torch.tensor(rows, dtype=torch.float32, device=self.device)

    def inference(self, model_input):
        with torch.no_grad():
            return torch.softmax(self.model(model_input), dim=1)

    def postprocess(self, inference_output):
        best = inference_output.max(dim=1)
        return [
            {"label": self.labels[int(index)], "probability": float(value)}
            for value, index in zip(best.values, best.indices)
        ]

    def handle(self, data, context):
        try:
            model_input = self.preprocess(data)
        except (KeyError, TypeError, ValueError) as error:
            logger.error("not a flower: %s", type(error).__name__)
            for index in range(len(data)):
                context.request_processor[index].report_status(400, "Not a flower")
            return ["four numbers are expected"] * len(data)
        for index in range(len(data)):
            context.set_response_content_type(index, "application/json")
            context.set_response_header(index, "X-Model", context.model_name)
        return self.postprocess(self.inference(model_input))


_service = FlowerService()


def handle(data, context):
    if not _service.initialized:
        _service.initialize(context)

    if data is None:
        return None

    return _service.handle(data, context)
