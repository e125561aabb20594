"""The built-in classifier at a few pixels, and with two classes in its answer."""

from torchvision import transforms

from ts.torch_handler.image_classifier import ImageClassifier


class EightPixelsClassified(ImageClassifier):
    image_processing = transforms.Compose(
        [transforms.Resize(8), transforms.CenterCrop(8), transforms.ToTensor()]
    )

    def initialize(self, context):
        super().initialize(context)
        self.set_max_result_classes(2)
