"""A classifier of 40 letters: embeddings, a convolution, the largest of each channel."""

from torch import nn


class LettersNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.letters = nn.Embedding(64, 8)
        self.conv = nn.Conv1d(8, 16, 5)
        self.classes = nn.Linear(16, 3)

    def forward(self, text):
        return self.classes(self.conv(self.letters(text).transpose(1, 2)).relu().amax(dim=2))
