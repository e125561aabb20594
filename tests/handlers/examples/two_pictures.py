"""One request, two named pictures: how alike are they? (A Siamese network.)"""

import io

import torch
from PIL import Image
from torchvision import transforms

from ts.torch_handler.base_handler import BaseHandler

LOOK = transforms.Compose([transforms.Resize((16, 16)), transforms.ToTensor()])


class TwoPictures(BaseHandler):
    def preprocess(self, data):
        sides = []
        for name in ("left", "right"):
            pictures = [Image.open(io.BytesIO(row[name])).convert("RGB") for row in data]
            sides.append(torch.stack([LOOK(picture) for picture in pictures]).to(self.device))
        return sides

    def inference(self, data):
        left, right = data
        with torch.inference_mode():
            return torch.cosine_similarity(self.model(left), self.model(right))

    def postprocess(self, data):
        return [{"similarity": value, "is_same": value > 0.9} for value in data.tolist()]
