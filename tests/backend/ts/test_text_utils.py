"""Words as torchtext's tokenizer makes them, and contractions as TorchServe expands them."""

import pytest

from ts.handler_utils.text_utils import expand_contractions, get_tokenizer, ngrams_iterator


def test_basic_english() -> None:
    tokenize = get_tokenizer("basic_english")
    assert tokenize("It's (VERY) good, isn't it?!") == [
        *("it", "'", "s", "(", "very", ")", "good", ","),
        *("isn", "'", "t", "it", "?", "!"),
    ]
    assert tokenize('a<br />b;c:d "e".') == ["a", "b", "c", "d", "e", "."]


def test_other_tokenizers() -> None:
    assert get_tokenizer(None)("a  b,c") == ["a", "b,c"]
    own = list
    assert get_tokenizer(own)("ab") == ["a", "b"]
    with pytest.raises(ValueError, match="spacy"):
        get_tokenizer("spacy")
    with pytest.raises(ValueError, match="fr"):
        get_tokenizer("basic_english", "fr")


def test_ngrams() -> None:
    assert list(ngrams_iterator(["a", "b", "c"], 3)) == ["a", "b", "c", "a b", "b c", "a b c"]
    assert list(ngrams_iterator(["a"], 2)) == ["a"]


@pytest.mark.parametrize(
    ("text", "expanded"),
    [
        ("don't stop", "do not stop"),
        ("I'm sure they'd've gone", "I am sure they would've gone"),
        ("can't've", "cannot've"),
        ("won't shan't sha'n't", "will not shall not shall not"),
        ("he's where'd how'd let's", "he is where did how did let us"),
        # The first letter stays, whatever the meaning begins with.
        ("ain't so's 'cause y'all", "as not so as 'ecause you all"),
        ("ma'am o'clock", "madam of the clock"),
        ("this's nor'easter", "this's nor'easter"),
    ],
)
def test_contractions_as_in_torchserve(text: str, expanded: str) -> None:
    assert expand_contractions(text) == expanded
