"""A model whose parts are processes: each adds its number to what all of them answer."""

import json
import os
import signal
import time

import torch
import torch.distributed as distributed


class Ranks:
    def initialize(self, context):
        self.calls = 0
        self.rank = int(os.environ.get("RANK", -1))
        if self.rank == 1 and os.path.exists("load_fails"):
            raise ValueError("rank 1 cannot load")
        if self.rank >= 0:
            distributed.init_process_group("gloo")
            self.total = self.sum_of_ranks()

    def sum_of_ranks(self):
        total = torch.tensor([self.rank + 1.0])
        distributed.all_reduce(total)
        return total.item()

    def handle(self, data, context):
        self.calls += 1
        asked = bytes(data[0]["body"]).decode()
        if asked == "end" and self.rank == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        if asked in ("end", "wait"):
            time.sleep(60)
        names = (
            "RANK",
            "LOCAL_RANK",
            "WORLD_SIZE",
            "TORCHELASTIC_RUN_ID",
            "TORCHELASTIC_MAX_RESTARTS",
            "LOGLEVEL",
            "OMP_NUM_THREADS",
        )
        answer = {
            "environment": {name: os.environ.get(name) for name in names},
            "calls": self.calls,
            "pid": os.getpid(),
            "group": os.getpgid(0),
        }
        if self.rank >= 0:
            answer["total"] = self.total
        if asked == "sum":
            answer["sum"] = self.sum_of_ranks()
        if asked == "calls":
            answer["all_calls"] = self.gathered()
        if asked == "reach":
            answer["refused"] = self.gathered(is_refused("/etc/shadow"))
        if asked == "limits":
            answer["no_new_privileges"] = self.gathered(no_new_privileges())
        return [json.dumps(answer)] * len(data)

    def gathered(self, value=None):
        mine = torch.tensor([float(self.calls if value is None else value)])
        found = [torch.zeros(1) for _ in range(distributed.get_world_size())]
        distributed.all_gather(found, mine)
        return [one.item() for one in found]


def is_refused(path):
    try:
        open(path).close()
    except PermissionError:
        return True
    return False


def no_new_privileges():
    with open("/proc/thread-self/status") as status:
        return next(line.split()[1] for line in status if line.startswith("NoNewPrivs"))
