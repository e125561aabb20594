"""Ranks that call each other: rank 0 has the others compute their part."""

import os

import torch
from torch.distributed import rpc

from ts.torch_handler.distributed.base_pippy_handler import BasePippyHandler


class RpcRanks(BasePippyHandler):
    def preprocess(self, data):
        return torch.tensor([float(bytes(row["body"])) for row in data])

    def inference(self, data):
        for rank in range(1, self.world_size):
            data = rpc.rpc_sync(f"worker{rank}", torch.mul, args=(data, 10))
        return data

    def postprocess(self, data):
        return [f"{value} by {self.world_size} from {os.environ['RANK']}" for value in data.tolist()]
