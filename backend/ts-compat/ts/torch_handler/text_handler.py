"""The base of handlers whose input is a text."""

import importlib
import os
import re
import string
import unicodedata
from abc import ABC
from collections.abc import Sequence
from typing import Any

import torch

from ts.context import Context
from ts.handler_utils.text_utils import expand_contractions, get_tokenizer
from ts.torch_handler.base_handler import BaseHandler
from ts.torch_handler.weights import load_pickled
from ts.utils.util import CLEANUP_REGEX

_PUNCTUATION = re.compile(f"[{re.escape(string.punctuation)}]")


class TextHandler(BaseHandler, ABC):
    """Brings the vocabulary `source_vocab.pt`, and what a text goes through before its words."""

    def __init__(self) -> None:
        super().__init__()
        self.source_vocab: Any = None
        self.input_text: Any = None
        self.lig: Any = None  # captum's, where it is installed
        self.tokenizer = get_tokenizer("basic_english")

    def initialize(self, context: Context) -> None:
        super().initialize(context)
        path = self.get_source_vocab_path(context)
        self.source_vocab = load_pickled(path, None, self.trusts_pickles)
        # TorchServe: a model without this layer fails to load, explanations or not.
        layer = self.model.embedding
        if (captum := _captum()) is not None:
            self.lig = captum.LayerIntegratedGradients(self.model, layer)

    def get_source_vocab_path(self, ctx: Context) -> str:
        """The vocabulary file of the archive."""
        names = (ctx.manifest or {}).get("model", {})
        name = names.get("sourceVocab") or "source_vocab.pt"
        path = os.path.join(str(ctx.system_properties["model_dir"]), name)
        if not os.path.isfile(path):
            raise FileNotFoundError(f"Missing the {name} file: text handlers need a vocabulary")
        return path

    def get_word_token(self, input_tokens: Sequence[str]) -> list[str]:
        """What an explanation calls the tokens."""
        return list(input_tokens)

    def summarize_attributions(self, attributions: Any) -> Any:
        """The importance of each input, so that those of a text add up to one."""
        # TorchServe leaves the dimension to torch: the first of one or three, else the second.
        dimension = 0 if attributions.ndim in (0, 1, 3) else 1
        shares = torch.nn.functional.softmax(attributions, dim=dimension)
        return shares / torch.linalg.vector_norm(shares.sum(-1))

    def _remove_html_tags(self, text: str) -> str:
        return CLEANUP_REGEX.sub("", text)

    def _expand_contractions(self, text: str) -> str:
        return expand_contractions(text)

    def _remove_accented_characters(self, text: str) -> str:
        decomposed = unicodedata.normalize("NFKD", text)
        return decomposed.encode("ascii", "ignore").decode("ascii")

    def _remove_punctuation(self, text: str) -> str:
        return _PUNCTUATION.sub("", text)

    _remove_puncutation = _remove_punctuation  # TorchServe's spelling

    def _tokenize(self, text: str) -> list[str]:
        return self.tokenizer(text)


def _captum() -> Any:
    """Only explanations need it, so handlers load without it, unlike TorchServe's."""
    try:
        return importlib.import_module("captum.attr")
    except ImportError:
        return None
