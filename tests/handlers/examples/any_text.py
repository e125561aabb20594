"""A text as the client likes to send it: typed, as bytes, as JSON or in a form; in any batch."""

import torch

from ts.torch_handler.base_handler import BaseHandler
from ts.utils.util import map_class_to_label


def text_of(row):
    value = row.get("text") or row.get("data") or row.get("body")
    if isinstance(value, dict):
        value = value["text"]
    return value if isinstance(value, str) else bytes(value).decode("utf-8")


class AnyText(BaseHandler):
    def preprocess(self, data):
        self.sizes = len(data)
        texts = [text_of(row)[:40].ljust(40) for row in data]
        return torch.tensor([[ord(letter) % 64 for letter in text] for text in texts])

    def postprocess(self, data):
        answers = map_class_to_label(data.softmax(dim=1).tolist(), self.mapping)
        return [{**answer, "batch": self.sizes} for answer in answers]
