"""The text model of PyTorch's tutorials: a bag of embeddings and one layer."""

from torch import nn


class TextModel(nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding = nn.EmbeddingBag(40, 8)
        self.classes = nn.Linear(8, 3)

    def forward(self, text, offsets):
        return self.classes(self.embedding(text, offsets))
