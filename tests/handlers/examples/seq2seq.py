"""An encoder and a decoder of one recurrent layer each, decoded greedily."""

import torch
from torch import nn


class Seq2Seq(nn.Module):
    def __init__(self):
        super().__init__()
        self.source = nn.Embedding(12, 10)
        self.target = nn.Embedding(12, 10)
        self.encoder = nn.GRU(10, 14, batch_first=True)
        self.decoder = nn.GRU(10, 14, batch_first=True)
        self.words = nn.Linear(14, 12)

    def translate(self, text, longest, end=0):
        _, state = self.encoder(self.source(text))
        numbers, last = [], torch.zeros(1, 1, dtype=torch.long)
        while len(numbers) < longest:
            output, state = self.decoder(self.target(last), state)
            last = self.words(output[:, -1]).argmax(dim=1, keepdim=True)
            if last.item() == end:
                break
            numbers.append(last.item())
        return numbers
