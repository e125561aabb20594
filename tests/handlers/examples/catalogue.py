"""Search: which entries of the archive's catalogue are nearest to a query? `k` says how many."""

import json
import os

import torch

from ts.torch_handler.base_handler import BaseHandler


class Catalogue(BaseHandler):
    def initialize(self, context):
        super().initialize(context)
        path = os.path.join(context.system_properties["model_dir"], "catalogue.json")
        with open(path, encoding="utf-8") as file:
            self.titles = json.load(file)
        with torch.inference_mode():
            self.vectors = self.model(self.numbers(self.titles))

    def numbers(self, texts):
        padded = [text.lower()[:24].ljust(24) for text in texts]
        return torch.tensor([[ord(letter) % 64 for letter in text] for text in padded])

    def preprocess(self, data):
        self.counts = [int(row["k"]) if "k" in row else 2 for row in data]
        texts = [row.get("data") or row.get("body") for row in data]
        return self.numbers([text if isinstance(text, str) else text.decode() for text in texts])

    def inference(self, data):
        with torch.inference_mode():
            return torch.cosine_similarity(self.model(data)[:, None], self.vectors[None], dim=2)

    def postprocess(self, data):
        answers = []
        for scores, count in zip(data, self.counts):
            best = scores.topk(min(count, len(self.titles)))
            titles = [self.titles[number] for number in best.indices]
            answers.append([list(pair) for pair in zip(titles, best.values.tolist())])
        return answers
