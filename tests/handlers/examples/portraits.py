"""Pictures out of nothing (a DCGAN): JSON says how many and from which seed; a PNG of all."""

import io

import torch
from torchvision.transforms import functional
from torchvision.utils import make_grid

from ts.torch_handler.base_handler import BaseHandler

LATENT = 12


class Portraits(BaseHandler):
    def preprocess(self, data):
        batch = []
        for row in data:
            wish = row.get("body") or {}
            noise = torch.Generator().manual_seed(int(wish.get("seed", 0)))
            count = int(wish.get("number_of_images", 1))
            batch.append(torch.randn(count, LATENT, 1, 1, generator=noise))
        return batch

    def inference(self, data):
        with torch.inference_mode():
            return [self.model(noise) for noise in data]

    def postprocess(self, data):
        answers = []
        for index, pictures in enumerate(data):
            png = io.BytesIO()
            grid = make_grid((pictures + 1) / 2, nrow=2)
            functional.to_pil_image(grid.clamp(0, 1)).save(png, "PNG")
            self.context.set_response_content_type(index, "image/png")
            answers.append(png.getvalue())
        return answers
