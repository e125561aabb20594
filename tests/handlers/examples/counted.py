"""Rows of numbers, measured: how many, how large, how certain."""

import torch

from ts.handler_utils.timer import timed
from ts.metrics.dimension import Dimension
from ts.metrics.metric_type_enum import MetricTypes
from ts.torch_handler.base_handler import BaseHandler


class Counted(BaseHandler):
    @timed
    def preprocess(self, data):
        rows = torch.tensor([row["body"] for row in data])
        metrics = self.context.metrics
        metrics.add_counter("RowsSeen", len(data))
        metrics.add_size("RowBytes", rows.element_size() * rows.shape[1], None, "B")
        metrics.add_metric(
            "RowWidth",
            rows.shape[1],
            "count",
            None,
            [Dimension("kind", "table")],
            MetricTypes.GAUGE,
        )
        return rows

    @timed
    def postprocess(self, data):
        best = data.softmax(dim=1).max(dim=1)
        for value in best.values.tolist():
            self.context.metrics.add_percent("Certainty", round(value * 100))
        return best.indices.tolist()
