"""The image classifier on an ONNX model: the session is asked by hand."""

import torch
from torchvision import transforms

from ts.torch_handler.image_classifier import ImageClassifier


class OnnxPictures(ImageClassifier):
    topk = 2
    image_processing = transforms.Compose([transforms.Resize((8, 8)), transforms.ToTensor()])

    def inference(self, data):
        name = self.model.get_inputs()[0].name
        return torch.tensor(self.model.run(None, {name: data.numpy()})[0])
