"""The mean of what each letter means, at its place."""

from torch import nn


class LetterBag(nn.Module):
    def __init__(self):
        super().__init__()
        self.letters = nn.Embedding(64, 16)
        self.mix = nn.Linear(24 * 16, 16)

    def forward(self, text):
        return self.mix(self.letters(text).flatten(1)).tanh()
