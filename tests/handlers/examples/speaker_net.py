"""A tone for each letter, of 40 samples, and its echo."""

import torch
from torch import nn


class SpeakerNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.tones = nn.Embedding(64, 40)
        self.echo = nn.Conv1d(1, 1, 9, padding=4)

    def forward(self, letters):
        return torch.tanh(self.echo(self.tones(letters).reshape(1, -1)))[0]
