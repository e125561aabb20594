"""A handler that unpacks a zip of its package beside itself, and imports it then."""

import importlib
import json
import os
import sys
import zipfile

from ts.torch_handler.base_handler import BaseHandler


class ZippedPackageHandler(BaseHandler):
    def __init__(self):
        super().__init__()
        self.shapes = None

    def initialize(self, context):
        self.context = context
        self.manifest = context.manifest
        model_dir = context.system_properties["model_dir"]
        source_dir = os.path.join(model_dir, "source")
        with zipfile.ZipFile(os.path.join(model_dir, "shape_tools.zip"), "r") as archive:
            archive.extractall(source_dir)
        sys.path.insert(0, source_dir)
        self.shapes = importlib.import_module("shape_tools.areas")
        self.initialized = True

    def preprocess(self, data):
        rows = [row.get("data") or row.get("body") for row in data]
        return [json.loads(row) if isinstance(row, (bytes, bytearray, str)) else row for row in rows]

    def inference(self, data, *args, **kwargs):
        return [self.shapes.area(row["shape"], row["size"]) for row in data]

    def postprocess(self, data):
        home = os.path.relpath(self.shapes.__file__, self.context.system_properties["model_dir"])
        return [{"area": area, "from": home} for area in data]
