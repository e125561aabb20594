"""A language model of 32 letters: one recurrent layer, whose state is what must be kept."""

import torch
from torch import nn

LETTERS = "\nabcdefghijklmnopqrstuvwxyz .,!?"


class LettersLm(nn.Module):
    def __init__(self):
        super().__init__()
        self.letters = nn.Embedding(32, 12)
        self.cell = nn.GRU(12, 24, batch_first=True)
        self.following = nn.Linear(24, 32)

    def forward(self, numbers, state=None):
        output, state = self.cell(self.letters(numbers), state)
        return self.following(output[:, -1]), state


def encode(text):
    known = [LETTERS.find(letter) for letter in text.lower()]
    return torch.tensor([[number if number >= 0 else 27 for number in known] or [0]])


def generate(model, text, count):
    """One letter after the other, the most probable."""
    numbers, state = encode(text), None
    for _ in range(count):
        with torch.inference_mode():
            scores, state = model(numbers, state)
        numbers = scores.argmax(dim=1, keepdim=True)
        yield LETTERS[numbers.item()]
