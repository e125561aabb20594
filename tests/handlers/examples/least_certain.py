"""The object detector, less strict: the archive's configuration says how certain it must be."""

from ts.torch_handler.object_detector import ObjectDetector


class LeastCertain(ObjectDetector):
    def initialize(self, context):
        super().initialize(context)
        self.threshold = context.model_yaml_config["handler"]["threshold"]
