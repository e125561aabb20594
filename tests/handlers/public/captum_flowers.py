"""A handler with explanations of its own: integrated gradients by captum, with names of columns."""

import json
import logging

import torch
from captum.attr import IntegratedGradients
from ts.torch_handler.base_handler import BaseHandler

logger = logging.getLogger(__name__)


class FlowersHandler(BaseHandler):
    columns = ["sepal length", "sepal width", "petal length", "petal width"]

    def __init__(self):
        super(FlowersHandler, self).__init__()
        self.integrated_gradients = None

    def initialize(self, ctx):
        super().initialize(ctx)
        self.integrated_gradients = IntegratedGradients(self.model)

    def preprocess(self, data):
        rows = []
        for row in data:
            values = row.get("data") or row.get("body")
            if isinstance(values, (bytes, bytearray)):
                values = json.loads(values)
            rows.append([float(values[column]) for column in self.columns])
        return torch.tensor(rows, requires_grad=self._is_explain())

    def postprocess(self, data):
        return [self.mapping[str(index)] for index in data.argmax(dim=1).tolist()]

    def get_insights(self, tensor_data, _, target=0):
        logger.info("explaining %s rows for target %s", len(tensor_data), target)
        attributions, delta = self.integrated_gradients.attribute(
            tensor_data, target=int(target), return_convergence_delta=True
        )
        return [
            {
                "importances": dict(zip(self.columns, row)),
                "delta": round(rest, 3),
                "target": self.mapping[str(target)],
            }
            for row, rest in zip(attributions.tolist(), delta.tolist())
        ]
