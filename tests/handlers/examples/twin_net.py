"""What a picture is reduced to before it is compared with another."""

from torch import nn


class TwinNet(nn.Sequential):
    def __init__(self):
        super().__init__(
            nn.Conv2d(3, 6, 5, stride=2), nn.Tanh(), nn.Flatten(), nn.Linear(6 * 6 * 6, 12)
        )
