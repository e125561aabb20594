"""Several models in one archive: extra files hold their weights, the configuration names them."""

import os

import torch
from table_net import TableNet

from ts.torch_handler.base_handler import BaseHandler


class Ensemble(BaseHandler):
    def initialize(self, context):
        self.context = context
        self.manifest = context.manifest
        model_dir = context.system_properties["model_dir"]
        self.models = {}
        for name in context.model_yaml_config["handler"]["models"]:
            model = TableNet()
            model.load_state_dict(torch.load(os.path.join(model_dir, f"{name}.pt")))
            self.models[name] = model.eval()
        self.initialized = True

    def preprocess(self, data):
        return torch.tensor([row["body"] for row in data])

    def inference(self, data):
        with torch.inference_mode():
            return {name: model(data).softmax(dim=1) for name, model in self.models.items()}

    def postprocess(self, data):
        mean = torch.stack(list(data.values())).mean(dim=0)
        return [
            {"mean": row.tolist(), **{name: one[index].tolist() for name, one in data.items()}}
            for index, row in enumerate(mean)
        ]
