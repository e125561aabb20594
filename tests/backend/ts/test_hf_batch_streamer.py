"""The text of a batch, word by word. The expected lists are TorchServe's own."""

from queue import Empty
from typing import Any

import pytest

from ts.handler_utils.hf_batch_streamer import TextIteratorStreamerBatch


class Tokens:
    """As much of a tensor as a streamer looks at."""

    def __init__(self, *rows: Any) -> None:
        self._rows = list(rows)
        self.shape = (len(rows),)

    def tolist(self) -> list[Any]:
        return self._rows


class Letters:
    """A tokenizer whose tokens are letters."""

    def decode(self, tokens: list[int], **options: Any) -> str:
        return "".join(map(chr, tokens)).replace("^", "" if options.get("skip") else "^")


def one_each(letters: str) -> Tokens:
    return Tokens(*map(ord, letters))


def told(steps: list[Tokens], **options: Any) -> list[list[str]]:
    streamer = TextIteratorStreamerBatch(Letters(), 2, timeout=20, **options)
    for step in steps:
        streamer.put(step)
    streamer.end()
    return [[piece["text"] for piece in pieces] for pieces in streamer]


PROMPT = Tokens([ord("p"), ord("q")], [ord("r"), ord("s")])


def test_words_of_two_rows() -> None:
    steps = [one_each(pair) for pair in ("ax", "by", "  ", "cz")]
    assert told(steps) == [["", ""], ["", ""], ["ab ", "xy "], ["", ""], ["c", "z"]]


def test_a_line_break_ends_a_word() -> None:
    steps = [one_each(pair) for pair in ("ax", "\ny", "cz", "d ")]
    assert told(steps) == [["", ""], ["a\n", ""], ["", ""], ["", "xyz "], ["cd", ""]]


def test_an_ideograph_is_a_word() -> None:
    steps = [one_each(pair) for pair in ("漢x", "字y")]
    assert told(steps) == [["漢", ""], ["字", ""], ["", "xy"]]


def test_the_prompt_is_text_too_unless_it_is_skipped() -> None:
    steps = [PROMPT, one_each("ab"), one_each("  ")]
    assert told(steps) == [["", ""], ["", ""], ["pqa ", "rsb "], ["", ""]]
    assert told(steps, skip_prompt=True) == [["", ""], ["a ", "b "], ["", ""]]


def test_further_options_go_to_the_tokenizer() -> None:
    assert told([one_each("^a"), one_each("  ")], skip=True)[1] == [" ", "a "]


@pytest.mark.parametrize("letters", ["abc", "a"])
def test_another_batch_size_is_refused(letters: str) -> None:
    streamer = TextIteratorStreamerBatch(Letters(), 2)
    with pytest.raises(ValueError, match="batch size is set to 2 but got input tensor of shape"):
        streamer.put(one_each(letters))


def test_waiting_ends_after_the_timeout() -> None:
    with pytest.raises(Empty):
        next(TextIteratorStreamerBatch(Letters(), 1, timeout=0.01))
