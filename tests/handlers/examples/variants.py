"""Two sets of weights under test: a header of the request chooses, else the first."""

import os

import torch
from table_net import TableNet

from ts.utils.util import PredictionException


class Variants:
    def initialize(self, context):
        model_dir = context.system_properties["model_dir"]
        self.models = {}
        for name in ("a", "b"):
            self.models[name] = TableNet()
            self.models[name].load_state_dict(torch.load(os.path.join(model_dir, f"{name}.pt")))

    def handle(self, data, context):
        answers = []
        for index, row in enumerate(data):
            name = context.get_request_header(index, "X-Variant") or "a"
            if name not in self.models:
                raise PredictionException(f"there is no variant {name}", 404)
            with torch.inference_mode():
                scores = self.models[name](torch.tensor([row["body"]]))[0]
            context.set_response_header(index, "X-Variant", name)
            answers.append({"variant": name, "scores": scores.tolist()})
        return answers
