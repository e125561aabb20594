"""A handler whose package, settings and data lie in the archive beside it."""

import os

import settings
from text_tools import Vocabulary
from text_tools.cleaning import clean

import torch
from ts.torch_handler.base_handler import BaseHandler


class ManyFilesHandler(BaseHandler):
    def initialize(self, context):
        super().initialize(context)
        model_dir = context.system_properties.get("model_dir")
        self.vocabulary = Vocabulary.load(os.path.join(model_dir, "text_tools", "data"))

    def preprocess(self, data):
        rows = []
        for row in data:
            text = row.get("data") or row.get("body")
            if isinstance(text, (bytes, bytearray)):
                text = text.decode("utf-8")
            counts = self.vocabulary.count(clean(text))
            rows.append([float(count) for count in counts])
        return torch.tensor(rows)

    def postprocess(self, data):
        scores = torch.sigmoid(data).squeeze(1).tolist()
        return [
            {"score": score, "mood": settings.GOOD if score > settings.LIMIT else settings.BAD}
            for score in scores
        ]
