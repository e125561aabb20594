"""The words of a whole batch while `transformers` still generates."""

from collections.abc import Iterator
from queue import Queue
from typing import Any


class TextIteratorStreamerBatch:
    """Given to `generate(streamer=...)`; iterating, in another thread, gives lists.

    Text comes word by word, as no token tells whether it ends one. Where none ends, the text is
    empty. `timeout` is how many seconds to wait for the next list: `queue.Empty` after that.
    """

    def __init__(
        self,
        tokenizer: Any,
        batch_size: int,
        skip_prompt: bool = False,
        timeout: float | None = None,
        **decode_kwargs: Any,
    ) -> None:
        self.batch_size = batch_size
        self._timeout = timeout
        self._is_prompt_next = skip_prompt
        self._rows = [_Row(tokenizer, decode_kwargs) for _ in range(batch_size)]
        self._pieces: Queue[list[dict[str, str]] | None] = Queue()

    def put(self, value: Any) -> None:
        """One token of each row, or several (the prompt)."""
        if value.shape[0] != self.batch_size:
            raise ValueError(
                f"TextIteratorStreamerBatch batch size is set to {self.batch_size} "
                f"but got input tensor of shape {value.shape}"
            )
        if self._is_prompt_next:
            self._is_prompt_next = False
            return
        tokens = [row if isinstance(row, list) else [row] for row in value.tolist()]
        self._send([row.add(some) for row, some in zip(self._rows, tokens, strict=True)])

    def end(self) -> None:
        """What is left of each row, and the end of the iteration."""
        self._send([row.rest() for row in self._rows])
        self._pieces.put(None)

    def __iter__(self) -> Iterator[list[dict[str, str]]]:
        return self

    def __next__(self) -> list[dict[str, str]]:
        pieces = self._pieces.get(timeout=self._timeout)
        if pieces is None:
            raise StopIteration
        return pieces

    def _send(self, texts: list[str]) -> None:
        self._pieces.put([{"text": text} for text in texts])


class _Row:
    """The tokens of one request since the last line break, and how much of them was told."""

    def __init__(self, tokenizer: Any, decode_kwargs: dict[str, Any]) -> None:
        self._tokenizer = tokenizer
        self._decode_kwargs = decode_kwargs
        self._tokens: list[int] = []
        self._told = 0

    def add(self, tokens: list[int]) -> str:
        self._tokens += tokens
        text = self._text()
        if text.endswith("\n"):
            return self.rest()
        # A character of Chinese or Japanese is a word.
        end = len(text) if text and _is_ideograph(text[-1]) else text.rfind(" ") + 1
        return self._tell(text, end)

    def rest(self) -> str:
        text = self._text()
        piece = self._tell(text, len(text))
        self._tokens, self._told = [], 0
        return piece

    def _tell(self, text: str, end: int) -> str:
        piece = text[self._told : end]
        self._told = max(self._told, end)
        return piece

    def _text(self) -> str:
        if not self._tokens:
            return ""
        return str(self._tokenizer.decode(self._tokens, **self._decode_kwargs))


def _is_ideograph(character: str) -> bool:
    code = ord(character)
    return 0x3400 <= code <= 0x9FFF or 0xF900 <= code <= 0xFAFF or 0x20000 <= code <= 0x2FA1F
