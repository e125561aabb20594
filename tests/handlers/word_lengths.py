"""A class handler of its own: no weights, its own initialize, pre- and postprocessing."""

import os

from ts.service import PredictionException
from ts.torch_handler.base_handler import BaseHandler


class WordLengths(BaseHandler):
    def __init__(self):
        super().__init__()
        self.calls = 0

    def initialize(self, context):
        self.context = context
        self.manifest = context.manifest
        model_dir = context.system_properties["model_dir"]
        with open(os.path.join(model_dir, "stop_words.txt")) as lines:
            self.stop_words = set(lines.read().split())
        self.unit = context.model_yaml_config.get("handler", {}).get("unit", "none")
        self.initialized = True

    def preprocess(self, data):
        texts = []
        for row in data:
            text = row.get("data") or row.get("body")
            if isinstance(text, (bytes, bytearray)):
                text = text.decode("utf-8")
            if not isinstance(text, str):
                raise PredictionException("text expected", 400)
            texts.append(text.split())
        return texts

    def inference(self, data, *args, **kwargs):
        self.calls += 1
        return [[len(word) for word in words if word not in self.stop_words] for words in data]

    def postprocess(self, data):
        for index in range(len(data)):
            self.context.set_response_header(index, "X-Unit", self.unit)
        return [{"lengths": lengths, "calls": self.calls} for lengths in data]

    def describe_handle(self):
        return {"stop_words": sorted(self.stop_words), "cwd_is_model_dir": os.path.samefile(
            os.getcwd(), self.context.system_properties["model_dir"])}

    def get_insights(self, tensor_data, raw_data, target):
        return [{"target": target, "words": words} for words in tensor_data]
