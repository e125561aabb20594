"""The base of handlers whose ranks call each other by torch's RPC (`parallelType: pp`)."""

import os
from abc import ABC

import torch

from ts.context import Context
from ts.handler_utils.distributed.pt_pippy import initialize_rpc_workers
from ts.torch_handler.base_handler import BaseHandler


class BasePippyHandler(BaseHandler, ABC):
    """Joins the other ranks; what to load is the subclass's affair."""

    local_rank = 0
    world_size = 1

    def initialize(self, ctx: Context) -> None:
        self.context = ctx
        self.local_rank = int(os.environ.get("LOCAL_RANK", 0))
        self.world_size = int(os.environ.get("WORLD_SIZE", 1))
        gpus = torch.cuda.device_count()
        self.device = self.local_rank % gpus if gpus else torch.device("cpu")
        initialize_rpc_workers(self.local_rank, self.world_size, ctx)
