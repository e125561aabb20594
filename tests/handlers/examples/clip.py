"""Classes of a video, which comes as JSON with its frames in base64."""

import base64
import io

import torch
from PIL import Image
from torchvision import transforms

from ts.torch_handler.image_classifier import ImageClassifier
from ts.utils.util import map_class_to_label


class Clip(ImageClassifier):
    topk = 3
    image_processing = transforms.Compose(
        [transforms.Resize(24), transforms.CenterCrop(24), transforms.ToTensor()]
    )

    def preprocess(self, data):
        clips = []
        for row in data:
            frames = row["body"]["frames"]
            pictures = [Image.open(io.BytesIO(base64.b64decode(frame))) for frame in frames]
            clips.append(torch.stack([self.image_processing(one) for one in pictures]))
        return clips

    def inference(self, data):
        with torch.inference_mode():
            return torch.stack([self.model(clip).mean(dim=0) for clip in data])

    def postprocess(self, data):
        scores, classes = data.softmax(dim=1).topk(self.topk, dim=1)
        return map_class_to_label(scores.tolist(), self.mapping, classes.tolist())
