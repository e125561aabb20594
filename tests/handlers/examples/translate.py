"""Translation: words in, words out, one at a time; both vocabularies are files of the archive."""

import json
import os

import torch

from ts.torch_handler.base_handler import BaseHandler


class Translate(BaseHandler):
    def initialize(self, context):
        super().initialize(context)
        model_dir = context.system_properties["model_dir"]
        self.words = {}
        for side in ("source", "target"):
            with open(os.path.join(model_dir, f"{side}_words.json"), encoding="utf-8") as file:
                self.words[side] = json.load(file)
        self.numbers = {word: number for number, word in enumerate(self.words["source"])}
        self.longest = context.model_yaml_config["handler"]["longest"]

    def preprocess(self, data):
        self.texts = []
        for row in data:
            text = row.get("data") or row.get("body")
            if isinstance(text, dict):
                text = text["text"]
            if isinstance(text, (bytes, bytearray)):
                text = text.decode("utf-8")
            self.texts.append(text)
        unknown = self.numbers["<unk>"]
        return [
            torch.tensor([[self.numbers.get(word, unknown) for word in text.lower().split()]])
            for text in self.texts
        ]

    def inference(self, data):
        with torch.inference_mode():
            return [self.model.translate(words, self.longest) for words in data]

    def postprocess(self, data):
        target = self.words["target"]
        return [
            {"input": text, "german_output": " ".join(target[number] for number in numbers)}
            for text, numbers in zip(self.texts, data)
        ]
