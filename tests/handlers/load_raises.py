"""Fails while loading; the first line of the archive's how.txt says how."""

import os
import sys


class LoadRaises:
    def initialize(self, context):
        with open(os.path.join(context.system_properties["model_dir"], "how.txt")) as how:
            how = how.read().strip()
        if how == "value-error":
            raise ValueError("the weights are not here")
        if how == "runtime-error":
            raise RuntimeError("the weights do not fit")
        if how == "cuda":
            raise RuntimeError("CUDA out of memory")
        if how == "memory-error":
            raise MemoryError("too large")
        if how == "exit":
            sys.exit(0)

    def handle(self, data, context):
        return ["never reached" for _ in data]
