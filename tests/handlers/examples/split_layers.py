"""A layer that is split over ranks, each with a part of its columns: tensor parallelism on CPUs."""

import os

import torch
import torch.distributed as distributed
from table_net import TableNet

from ts.torch_handler.base_handler import BaseHandler


class SplitLayers(BaseHandler):
    def initialize(self, context):
        self.context = context
        self.manifest = context.manifest
        distributed.init_process_group("gloo")
        self.rank, self.ranks = distributed.get_rank(), distributed.get_world_size()
        model_dir = context.system_properties["model_dir"]
        weights = torch.load(os.path.join(model_dir, "table.pt"))
        model = TableNet()
        model.load_state_dict(weights)
        first, self.act, last = model
        size = first.out_features // self.ranks
        mine = slice(self.rank * size, (self.rank + 1) * size)
        self.first = (first.weight[mine], first.bias[mine])
        self.last = (last.weight[:, mine], last.bias)
        self.initialized = True

    def preprocess(self, data):
        return torch.tensor([row["body"] for row in data])

    def inference(self, data):
        with torch.inference_mode():
            hidden = self.act(torch.nn.functional.linear(data, *self.first))
            part = torch.nn.functional.linear(hidden, self.last[0])
            distributed.all_reduce(part)
            return part + self.last[1]

    def postprocess(self, data):
        return [{"scores": row, "ranks": self.ranks} for row in data.tolist()]
