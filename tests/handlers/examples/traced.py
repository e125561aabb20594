"""Under torch's profiler, with arguments of its own: what ran is told in the log."""

import torch

from ts.torch_handler.base_handler import BaseHandler


def tell(profile):
    names = {event.key for event in profile.key_averages()}
    print("the profile knows of linear layers:", "aten::linear" in names, flush=True)


class Traced(BaseHandler):
    def __init__(self):
        super().__init__()
        self.profiler_args = {
            "activities": [torch.profiler.ProfilerActivity.CPU],
            "on_trace_ready": tell,
        }
