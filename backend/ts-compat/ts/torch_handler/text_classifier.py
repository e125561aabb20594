"""The built-in handler `text_classifier`."""

from typing import Any

import torch

from ts.handler_utils.text_utils import ngrams_iterator
from ts.handler_utils.timer import timed
from ts.torch_handler.text_batch import Texts
from ts.torch_handler.text_handler import TextHandler
from ts.torch_handler.vision_handler import no_captum
from ts.utils.util import map_class_to_label


class TextClassifier(TextHandler):
    """Answers the probability of every class: `{label: probability}`."""

    ngrams = 2

    @timed
    def preprocess(self, data: Any) -> Any:
        """The numbers of words and pairs of words, and the words themselves.

        A word that the vocabulary does not know is an error, unless it has a default.
        """
        words = [self._words(row.get("data") or row.get("body")) for row in data]
        numbers = [
            torch.as_tensor(
                [self.source_vocab[token] for token in ngrams_iterator(one, self.ngrams)],
                device=self.device,
            )
            for one in words
        ]
        return Texts.of(numbers, words)

    @timed
    def inference(self, data: Any, *args: Any, **kwargs: Any) -> Any:
        # A subclass may have prepared one text by itself: a plain pair.
        offsets = torch.as_tensor(getattr(data, "offsets", [0]), device=self.device)
        with torch.inference_mode():
            return self.model(data[0], offsets, *args, **kwargs)

    @timed
    def postprocess(self, data: Any) -> Any:
        return map_class_to_label(torch.softmax(data, dim=1).tolist(), self.mapping)

    def get_insights(self, text_preprocess: Any, _: Any, target: Any = 0) -> list[dict[str, Any]]:
        """captum's integrated gradients of the embedding: how much it spoke for `target`."""
        if self.lig is None:
            raise no_captum("text")
        numbers = text_preprocess[0]
        offsets = [*getattr(text_preprocess, "offsets", [0]), len(numbers)]
        words = getattr(text_preprocess, "words", [text_preprocess[1]])
        return [
            {
                "importances": self._importances(numbers[start:end], target),
                "words": self.get_word_token(one),
            }
            for start, end, one in zip(offsets, offsets[1:], words, strict=False)
        ]

    def _importances(self, numbers: Any, target: Any) -> Any:
        offsets = torch.zeros(1, dtype=torch.long, device=numbers.device)
        attributions = self.lig.attribute(
            numbers,
            torch.zeros_like(numbers),
            additional_forward_args=offsets,
            target=target,
        )
        return self.summarize_attributions(attributions).tolist()

    def _words(self, text: Any) -> list[str]:
        if isinstance(text, bytes | bytearray):
            text = text.decode("utf-8")
        for step in (
            self._remove_html_tags,
            str.lower,
            self._expand_contractions,
            self._remove_accented_characters,
            self._remove_punctuation,
        ):
            text = step(text)
        return self._tokenize(text)
