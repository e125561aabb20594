"""Classifies texts. There is no vocabulary to download: a byte is a token."""

from typing import Any

import torch

from ts.torch_handler.base_handler import BaseHandler

TOKENS = 128


class BertHandler(BaseHandler):
    """Loading and inference are BaseHandler's own."""

    def preprocess(self, data: list[dict[str, Any]]) -> Any:
        return torch.stack([_tokens(row.get("data") or row.get("body")) for row in data])

    def postprocess(self, data: Any) -> Any:
        return torch.softmax(data, dim=1).tolist()


def _tokens(text: Any) -> Any:
    encoded = text.encode() if isinstance(text, str) else bytes(text)
    return torch.tensor([1 + byte for byte in encoded[:TOKENS].ljust(TOKENS)])
