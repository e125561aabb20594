"""Bad inputs of a batch are answered 400, each for itself; the model sees the good ones only."""

import torch

from ts.torch_handler.base_handler import BaseHandler


def fault(row):
    body = row.get("body")
    if not isinstance(body, list):
        return "a list of numbers is expected"
    if len(body) != 3:
        return f"3 numbers are expected, not {len(body)}"
    return None


class Validated(BaseHandler):
    def handle(self, data, context):
        faults = [fault(row) for row in data]
        good = [row["body"] for row, one in zip(data, faults) if one is None]
        with torch.inference_mode():
            answers = iter(self.model(torch.tensor(good)).tolist() if good else [])
        results = []
        for index, one in enumerate(faults):
            if one is None:
                results.append({"scores": next(answers)})
            else:
                context.set_response_status(400, "Bad Input", index)
                context.set_response_header(index, "X-Fault", one)
                results.append({"error": one})
        return results
