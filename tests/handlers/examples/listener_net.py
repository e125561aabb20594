"""From 17 frequencies to 15 letters."""

from torch import nn


class ListenerNet(nn.Sequential):
    def __init__(self):
        super().__init__(nn.Linear(17, 20), nn.Tanh(), nn.Linear(20, 15))
