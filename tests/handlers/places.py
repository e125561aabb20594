"""Module-level handler: says where it runs, and in which order its imports are looked for."""

import importlib
import json
import os
import sys

SHADOWING = (
    "backend",
    "cryptography",
    "modelstore",
    "msgpack",
    "profile",
    "runtime",
    "secrets",
    "statistics",
    "torch",
)


def handle(data, context):
    if data is None:
        return None
    model_dir = context.system_properties["model_dir"]
    names = {
        os.path.dirname(model_dir): "beside the model",
        os.path.realpath(model_dir): "the model",
        "/nowhere/inherited": "the server's",
        os.path.dirname(os.__file__): "the standard library",
    }
    own = []
    for name in SHADOWING:
        # Only those that are there: importing torch takes its time.
        if os.path.exists(f"{name}.py") and hasattr(importlib.import_module(name), "FROM_ARCHIVE"):
            own.append(name)
    answer = {
        "working directory": names.get(os.getcwd()),
        "model_dir": "a link" if os.path.islink(model_dir) else "the model",
        "file": [names.get(os.path.dirname(__file__)), os.path.basename(__file__), __name__],
        "path": [names[place] for place in sys.path if place in names],
        "from the archive": own,
    }
    # As text: TorchServe itself looks into `torch` for what a dictionary becomes.
    return [json.dumps(answer)] * len(data)
