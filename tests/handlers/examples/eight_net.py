"""A classifier of 8 x 8 pixels, small enough to be any format's first example."""

from torch import nn


class EightNet(nn.Sequential):
    def __init__(self):
        super().__init__(nn.Conv2d(3, 4, 3), nn.Tanh(), nn.Flatten(), nn.Linear(4 * 6 * 6, 6))
