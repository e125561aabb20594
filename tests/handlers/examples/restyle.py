"""A picture for a picture: style transfer, answered as a PNG."""

import io

import torch
from PIL import Image
from torchvision.transforms import functional

from ts.torch_handler.base_handler import BaseHandler


class Restyle(BaseHandler):
    def preprocess(self, data):
        pictures = []
        for row in data:
            picture = Image.open(io.BytesIO(row.get("data") or row.get("body"))).convert("RGB")
            pictures.append(functional.to_tensor(picture.resize((40, 32))))
        return torch.stack(pictures)

    def postprocess(self, data):
        answers = []
        for index, picture in enumerate(data.clamp(0, 1)):
            png = io.BytesIO()
            functional.to_pil_image(picture).save(png, "PNG")
            self.context.set_response_content_type(index, "image/png")
            answers.append(png.getvalue())
        return answers
