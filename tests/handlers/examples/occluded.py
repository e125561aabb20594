"""Explanations of its own: by how much the score falls where the picture is covered."""

import torch
from torchvision import transforms

from ts.torch_handler.image_classifier import ImageClassifier

SIZE, PATCH = 16, 4


class Occluded(ImageClassifier):
    topk = 2
    image_processing = transforms.Compose(
        [transforms.Resize((SIZE, SIZE)), transforms.ToTensor()]
    )

    def get_insights(self, tensor_data, _, target=0):
        target = int(target)
        answers = []
        with torch.inference_mode():
            for picture in tensor_data:
                whole = self.model(picture[None]).softmax(dim=1)[0, target]
                rows = []
                for top in range(0, SIZE, PATCH):
                    covered = picture.repeat(SIZE // PATCH, 1, 1, 1)
                    for number in range(SIZE // PATCH):
                        left = number * PATCH
                        covered[number, :, top : top + PATCH, left : left + PATCH] = 0
                    scores = self.model(covered).softmax(dim=1)[:, target]
                    rows.append((whole - scores).tolist())
                answers.append(rows)
        return answers
