"""Several texts as one input of a bag of embeddings."""

from collections.abc import Sequence
from typing import Any

import torch


class Texts(tuple[Any, Any]):
    """(token numbers of all texts in a row, their tokens), and where each text begins.

    The tokens of one text are a list of words, those of several a list of such lists.
    """

    offsets: list[int]
    words: list[list[str]]

    @classmethod
    def of(cls, numbers: Sequence[Any], words: list[list[str]]) -> "Texts":
        together = torch.cat(list(numbers)) if len(numbers) != 1 else numbers[0]
        made = cls((together, words[0] if len(words) == 1 else words))
        made.words, made.offsets = words, [0]
        for one in numbers[:-1]:
            made.offsets.append(made.offsets[-1] + len(one))
        return made
