"""A model in two stages: rank 0 keeps the first, rank 1 the last, and answers by RPC."""

import os

import torch
from table_net import TableNet
from torch.distributed import rpc

from ts.torch_handler.distributed.base_pippy_handler import BasePippyHandler

STAGES = {}


def run_last(hidden):
    with torch.inference_mode():
        return STAGES["last"](hidden)


class StagedLayers(BasePippyHandler):
    def initialize(self, context):
        self.context = context
        self.manifest = context.manifest
        model = TableNet()
        model_dir = context.system_properties["model_dir"]
        model.load_state_dict(torch.load(os.path.join(model_dir, "table.pt")))
        self.first, STAGES["last"] = model[:2], model[2]
        super().initialize(context)

    def preprocess(self, data):
        return torch.tensor([row["body"] for row in data])

    def inference(self, data):
        with torch.inference_mode():
            hidden = self.first(data)
        return rpc.rpc_sync("worker1", run_last, args=(hidden,))

    def postprocess(self, data):
        return [{"scores": row, "ranks": self.world_size} for row in data.tolist()]
