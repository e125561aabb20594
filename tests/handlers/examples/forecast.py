"""A time series as JSON, and as many further values as the request asks for."""

import torch

from ts.torch_handler.base_handler import BaseHandler


class Forecast(BaseHandler):
    def preprocess(self, data):
        return [(torch.tensor(row["body"]["series"]), row["body"]["ahead"]) for row in data]

    def inference(self, data):
        with torch.inference_mode():
            return [self.model(series, ahead) for series, ahead in data]

    def postprocess(self, data):
        return [{"forecast": values.tolist()} for values in data]
