"""The one form of base64url, written and read."""

import base64
from typing import Any

import pytest

from torchkeep.runtime.base64url import decode, encode


@pytest.mark.parametrize("text", ["a", "YQ==", "Y+", "Y/", " YQ", "é", 1, None])
def test_only_base64url_is_read(text: Any) -> None:
    with pytest.raises(ValueError, match="base64url"):
        decode(text)


def test_it_is_written_without_padding() -> None:
    for length in range(5):
        data = bytes(range(250, 250 + length))
        assert base64.urlsafe_b64decode(encode(data) + "==") == data
        assert decode(encode(data)) == data
