"""A table as CSV, many rows in a request; the scaling of its columns is a file of the archive."""

import csv
import io
import json
import os

import torch

from ts.torch_handler.base_handler import BaseHandler
from ts.utils.util import PredictionException


class Table(BaseHandler):
    def initialize(self, context):
        super().initialize(context)
        path = os.path.join(context.system_properties["model_dir"], "columns.json")
        with open(path, encoding="utf-8") as file:
            self.columns = json.load(file)

    def preprocess(self, data):
        self.counts, values = [], []
        for row in data:
            body = row.get("data") or row.get("body")
            text = body if isinstance(body, str) else body.decode("utf-8")
            lines = list(csv.DictReader(io.StringIO(text)))
            missing = set(self.columns) - set(lines[0] if lines else ())
            if missing:
                raise PredictionException(f"columns are missing: {sorted(missing)}", 422)
            self.counts.append(len(lines))
            for line in lines:
                values.append(
                    [(float(line[name]) - mean) / std for name, (mean, std) in self.columns.items()]
                )
        return torch.tensor(values)

    def postprocess(self, data):
        rows = data.softmax(dim=1).split(self.counts)
        for index in range(len(rows)):
            self.context.set_response_content_type(index, "text/csv; charset=utf-8")
            self.context.set_response_header(
                index, "Content-Disposition", 'attachment; filename="answers.csv"'
            )
        answers = []
        for row in rows:
            lines = ["stays,leaves", *(f"{a:.2f},{b:.2f}" for a, b in row.tolist())]
            answers.append("\n".join(lines) + "\n")
        return answers
