"""The image classifier in micro-batches, as large and as parallel as the configuration says."""

from torchvision import transforms

from ts.handler_utils.micro_batching import MicroBatching
from ts.torch_handler.image_classifier import ImageClassifier


class MicroPictures(ImageClassifier):
    topk = 2
    image_processing = transforms.Compose([transforms.Resize((24, 24)), transforms.ToTensor()])

    def __init__(self):
        super().__init__()
        self.handle = MicroBatching(self, micro_batch_size=1)

    def initialize(self, context):
        super().initialize(context)
        micro_batching = context.model_yaml_config["micro_batching"]
        self.handle.micro_batch_size = micro_batching["micro_batch_size"]
        self.handle.parallelism = micro_batching["parallelism"]
