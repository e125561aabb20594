"""The base handler for JSON rows: what any tutorial starts with."""

import torch

from ts.torch_handler.base_handler import BaseHandler


class PlainRows(BaseHandler):
    def preprocess(self, data):
        return torch.tensor([row.get("data") or row.get("body") for row in data])
