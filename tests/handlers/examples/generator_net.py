"""The generator of a DCGAN, from 12 numbers to 16 x 16 pixels."""

from torch import nn


class GeneratorNet(nn.Sequential):
    def __init__(self):
        super().__init__(
            nn.ConvTranspose2d(12, 16, 4),
            nn.ReLU(),
            nn.ConvTranspose2d(16, 8, 4, stride=2, padding=1),
            nn.ReLU(),
            nn.ConvTranspose2d(8, 3, 4, stride=2, padding=1),
            nn.Tanh(),
        )
