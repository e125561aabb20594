"""Words of English text, as torchtext's `basic_english` makes them, without torchtext."""

import re
from collections.abc import Callable, Iterable, Iterator, Sequence

# What stands between words, and what is a word of its own.
_REPLACED = (
    (re.compile(r"'"), " '  "),
    (re.compile(r'"'), ""),
    (re.compile(r"<br />|[;:]"), " "),
    (re.compile(r"([.,()!?])"), r" \1 "),
)


def get_tokenizer(
    tokenizer: str | Callable[[str], list[str]] | None, language: str = "en"
) -> Callable[[str], list[str]]:
    """`basic_english` by its name, text split at white space for None, or your own function."""
    if tokenizer is None:
        return str.split
    if callable(tokenizer):
        return tokenizer
    if tokenizer != "basic_english":
        raise ValueError(f"no tokenizer {tokenizer!r}: expected basic_english, None or a function")
    if language != "en":
        raise ValueError(f"basic_english is for the language en, not {language}")
    return _basic_english


def ngrams_iterator(token_list: Sequence[str], ngrams: int) -> Iterator[str]:
    """The tokens, then each two neighbours, up to each `ngrams` neighbours."""
    yield from token_list
    for size in range(2, ngrams + 1):
        for start in range(len(token_list) - size + 1):
            yield " ".join(token_list[start : start + size])


def expand_contractions(text: str) -> str:
    """ "don't" as "do not"; the first letter stays as it is written."""
    return _CONTRACTION.sub(_expanded, text)


def _basic_english(line: str) -> list[str]:
    line = line.lower()
    for pattern, replacement in _REPLACED:
        line = pattern.sub(replacement, line)
    return line.split()


def _all(beginnings: str, ending: str, meaning: str) -> Iterable[tuple[str, str]]:
    return ((f"{one}{ending}", f"{one} {meaning}") for one in beginnings.split())


_NOT = "are could did does do had has have is may might must need ought should was were would"
_HAVE = "could i might must should so they to we what when where who why will would you"
_WOULD = "he i it she that there they we you"
_WILL = "he how i it she they we what who you"
_IS = "he how it she that there what when where who why"
_CONTRACTIONS: dict[str, str] = {
    **dict(_all(_NOT, "n't", "not")),
    **dict(_all(_HAVE, "'ve", "have")),
    **dict(_all(_WOULD, "'d", "would")),
    **dict(_all("how where", "'d", "did")),
    **dict(_all(_WILL, "'ll", "will")),
    **dict(_all(_IS, "'s", "is")),
    **dict(_all("they we what you", "'re", "are")),
    "i'm": "i am",
    "ain't": "is not",
    "can't": "cannot",
    "won't": "will not",
    "shan't": "shall not",
    "sha'n't": "shall not",
    "let's": "let us",
    "so's": "so as",
    "ma'am": "madam",
    "o'clock": "of the clock",
    "y'all": "you all",
    "'cause": "because",
}
_CONTRACTION = re.compile("|".join(map(re.escape, _CONTRACTIONS)), re.IGNORECASE)


def _expanded(match: re.Match[str]) -> str:
    # TorchServe: the first letter stays, so that "ain't" becomes "as not", and "'cause"
    # "'ecause". Vocabularies were made with that.
    found = match.group()
    return found[0] + _CONTRACTIONS[found.lower()][1:]
