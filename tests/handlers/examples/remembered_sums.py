"""A stateful model: the sum of each sequence so far, in a cache of limited size."""

from collections import OrderedDict

from ts.torch_handler.base_handler import BaseHandler


class RememberedSums(BaseHandler):
    def initialize(self, context):
        self.context = context
        self.capacity = context.model_yaml_config["handler"]["cache"]["capacity"]
        context.cache = OrderedDict()
        self.initialized = True

    def preprocess(self, data):
        prepared = []
        for index, row in enumerate(data):
            sequence = self.context.get_sequence_id(index)
            start = self.context.get_request_header(index, "ts_request_sequence_start")
            prepared.append((sequence, start == "true", float(row.get("data") or row["body"])))
        return prepared

    def inference(self, data):
        cache, sums = self.context.cache, []
        for sequence, is_start, value in data:
            if sequence not in cache:
                cache[sequence] = 0.0
                while len(cache) > self.capacity:
                    cache.popitem(last=False)
            cache[sequence] += value
            cache.move_to_end(sequence)
            sums.append((cache[sequence], is_start))
        return sums

    def postprocess(self, data):
        answers = []
        for index, (total, is_start) in enumerate(data):
            if total >= 100:
                sequence = self.context.get_sequence_id(index)
                del self.context.cache[sequence]
                self.context.set_response_header(
                    index, self.context.header_key_sequence_end, sequence
                )
            answers.append({"sum": total, "started_by_server": is_start})
        return answers
