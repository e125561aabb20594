"""parallelType custom: the handler starts the process of its last stage itself."""

import multiprocessing
import os

import torch
from table_net import TableNet

from ts.torch_handler.base_handler import BaseHandler


def serve(stage, pipe):
    torch.set_num_threads(1)
    while True:
        with torch.inference_mode():
            pipe.send(stage(torch.tensor(pipe.recv())).tolist())


class OwnStages(BaseHandler):
    def initialize(self, context):
        self.context = context
        self.manifest = context.manifest
        model = TableNet()
        model_dir = context.system_properties["model_dir"]
        model.load_state_dict(torch.load(os.path.join(model_dir, "table.pt")))
        *first, last = model
        self.first = torch.nn.Sequential(*first)
        forking = multiprocessing.get_context("fork")
        self.pipe, other_end = forking.Pipe()
        self.stage = forking.Process(target=serve, args=(last, other_end), daemon=True)
        self.stage.start()
        self.initialized = True

    def preprocess(self, data):
        return torch.tensor([row["body"] for row in data])

    def inference(self, data):
        with torch.inference_mode():
            self.pipe.send(self.first(data).tolist())
        return self.pipe.recv()

    def postprocess(self, data):
        names = ("RANK", "WORLD_SIZE")
        told = [name for name in names if name in os.environ]
        return [{"scores": row, "told": told, "own": self.stage.is_alive()} for row in data]
