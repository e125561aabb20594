"""Class handler whose batches are handled in parts."""

from ts.handler_utils.micro_batching import MicroBatching
from ts.torch_handler.base_handler import BaseHandler


class Parts(BaseHandler):
    def __init__(self):
        super().__init__()
        self.handle = MicroBatching(self, micro_batch_size=2)

    def initialize(self, context):
        self.context = context
        self.handle.parallelism = context.model_yaml_config["micro_batching"]["parallelism"]

    def preprocess(self, rows):
        return [(row["body"].decode(), len(rows), self.handle.get_micro_batch_idx()) for row in rows]

    def inference(self, rows):
        if any(body == "bad" for body, *_ in rows):
            raise ValueError("a secret of the handler")
        return [(*row, self.handle.get_micro_batch_idx()) for row in rows]

    def postprocess(self, rows):
        return [list(row) for row in rows]
