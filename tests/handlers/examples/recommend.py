"""A recommender (DLRM): numbers and bags of ids as JSON, a probability for each example."""

import torch

from ts.torch_handler.base_handler import BaseHandler


class Recommend(BaseHandler):
    def preprocess(self, data):
        floats, ids, offsets = [], [], [0]
        self.examples = []
        for row in data:
            examples = row["body"]
            examples = examples if isinstance(examples, list) else [examples]
            self.examples.append(len(examples))
            for example in examples:
                floats.append(example["float_features"])
                ids += example["id_list_features.values"]
                offsets.append(len(ids))
        return torch.tensor(floats), torch.tensor(ids), torch.tensor(offsets[:-1])

    def inference(self, data):
        with torch.inference_mode():
            return self.model(*data).sigmoid()

    def postprocess(self, data):
        rows = data.split(self.examples)
        return [{"default": row[0].item()} if len(row) == 1 else row.tolist() for row in rows]
