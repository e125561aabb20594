"""Generation in continuous batches: each step is one letter of every request under way."""

import letters_lm
import torch

from ts.torch_handler.base_handler import BaseHandler


class GenerationSteps(BaseHandler):
    def initialize(self, context):
        super().initialize(context)
        context.under_way = {}

    def handle(self, data, context):
        under_way = context.under_way
        for index, row in enumerate(data):
            request_id = context.get_request_id(index)
            if request_id not in under_way:
                wish = row["body"]
                under_way[request_id] = {
                    "numbers": letters_lm.encode(wish["prompt"]),
                    "state": None,
                    "left": wish["max_new_tokens"],
                }
        for request_id in set(under_way) - set(context.request_ids.values()):
            del under_way[request_id]
        letters, criteria = [], []
        for index in range(len(data)):
            one = under_way[context.get_request_id(index)]
            with torch.inference_mode():
                scores, one["state"] = self.model(one["numbers"], one["state"])
            one["numbers"] = scores.argmax(dim=1, keepdim=True)
            one["left"] -= 1
            letters.append(letters_lm.LETTERS[one["numbers"].item()])
            criteria.append(lambda _, one=one: one["left"] <= 0)
        context.stopping_criteria = criteria
        return letters
