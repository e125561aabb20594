"""BERT-base with a classifier on top, as a class that needs no arguments."""

from typing import Any

import torch
from transformers import BertConfig, BertForSequenceClassification


class BertClassifier(torch.nn.Module):
    """Token numbers in, one row of logits per text out."""

    def __init__(self) -> None:
        super().__init__()
        self.bert = BertForSequenceClassification(BertConfig())

    def forward(self, tokens: Any) -> Any:
        return self.bert(input_ids=tokens, return_dict=False)[0]
