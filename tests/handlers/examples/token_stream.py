"""Generated text, streamed token by token."""

import letters_lm

from ts.handler_utils.utils import send_intermediate_predict_response
from ts.torch_handler.base_handler import BaseHandler


class TokenStream(BaseHandler):
    def preprocess(self, data):
        bodies = [row.get("data") or row.get("body") for row in data]
        return [body if isinstance(body, str) else body.decode("utf-8") for body in bodies]

    def inference(self, data):
        count = self.model_yaml_config["handler"]["max_new_tokens"]
        streams = [letters_lm.generate(self.model, text, count) for text in data]
        last = [""] * len(data)
        for tokens in zip(*streams):
            if any(last):
                send_intermediate_predict_response(
                    last,
                    self.context.request_ids,
                    "Intermediate Prediction success",
                    200,
                    self.context,
                )
            last = list(tokens)
        return last

    def postprocess(self, data):
        return data
