"""Two convolutions that give a picture other colours."""

from torch import nn


class StyleNet(nn.Sequential):
    def __init__(self):
        super().__init__(
            nn.Conv2d(3, 6, 3, padding=1), nn.ReLU(), nn.Conv2d(6, 3, 3, padding=1), nn.Sigmoid()
        )
