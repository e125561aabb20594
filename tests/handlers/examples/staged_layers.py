"""A model in two stages: rank 0 keeps the first and asks rank 1, which keeps the last, by RPC."""

import os

import torch
from table_net import TableNet
from torch.distributed import rpc

from ts.torch_handler.base_handler import BaseHandler

STAGES = {}


def run_last(hidden):
    with torch.inference_mode():
        return STAGES["last"](hidden)


class StagedLayers(BaseHandler):
    def initialize(self, context):
        self.context = context
        self.manifest = context.manifest
        self.rank, self.ranks = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
        model = TableNet()
        model_dir = context.system_properties["model_dir"]
        model.load_state_dict(torch.load(os.path.join(model_dir, "table.pt")))
        *first, STAGES["last"] = model
        self.first = torch.nn.Sequential(*first)
        rpc.init_rpc(f"stage{self.rank}", rank=self.rank, world_size=self.ranks)
        self.initialized = True

    def preprocess(self, data):
        return torch.tensor([row["body"] for row in data])

    def inference(self, data):
        with torch.inference_mode():
            hidden = self.first(data)
        return rpc.rpc_sync("stage1", run_last, args=(hidden,))

    def postprocess(self, data):
        return [{"scores": row, "ranks": self.ranks} for row in data.tolist()]
