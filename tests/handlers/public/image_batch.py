"""Many pictures in one batch, and many pictures in one request, as bytes or base64."""

import base64
import io
import json
from abc import ABC

import torch
import torch.nn.functional as F
from PIL import Image
from torchvision import transforms
from ts.torch_handler.base_handler import BaseHandler
from ts.utils.util import map_class_to_label


class ImageBatchHandler(BaseHandler, ABC):
    topk = 2
    transform = transforms.Compose(
        [
            transforms.Resize(8),
            transforms.CenterCrop(8),
            transforms.ToTensor(),
            transforms.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
        ]
    )

    def __init__(self):
        super(ImageBatchHandler, self).__init__()
        self.counts = []

    def preprocess(self, requests):
        self.counts = []
        images = []
        for request in requests:
            content = request.get("data") or request.get("body")
            if isinstance(content, (bytes, bytearray)) and content[:1] in (b"{", b"["):
                content = json.loads(content)
            if isinstance(content, dict):
                pictures = [base64.b64decode(one["b64"]) for one in content["instances"]]
            elif isinstance(content, str):
                pictures = [base64.b64decode(content)]
            else:
                pictures = [content]
            self.counts.append(len(pictures))
            for picture in pictures:
                image = Image.open(io.BytesIO(picture)).convert("RGB")
                images.append(self.transform(image))
        return torch.stack(images).to(self.device)

    def inference(self, images, *args, **kwargs):
        with torch.no_grad():
            return self.model.forward(images)

    def postprocess(self, outputs):
        probabilities, classes = torch.topk(F.softmax(outputs, dim=1), self.topk, dim=1)
        labelled = map_class_to_label(probabilities.tolist(), self.mapping, classes.tolist())
        answers = []
        for count in self.counts:
            answers.append(labelled[:count] if count > 1 else labelled[0])
            labelled = labelled[count:]
        return answers
