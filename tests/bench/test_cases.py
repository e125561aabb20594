"""When two servers' answers count as the same."""

import pytest

from bench.cases import alike


@pytest.mark.parametrize(
    ("ours", "theirs", "same"),
    [
        ({"cat": 0.501, "dog": 0.499}, {"dog": 0.5, "cat": 0.5}, True),
        ({"cat": 0.501}, {"cat": 0.6}, False),
        ({"cat": 0.5}, {"dog": 0.5}, False),
        ([[0.5, 0.5]], [[0.51, 0.49]], True),
        ([0.5], [0.5, 0.5], False),
        ("hello", "hello", True),
        ("hello", "hullo", False),
        (None, 0.0, False),
    ],
)
def test_answers_are_alike_in_shape_and_nearly_in_numbers(
    ours: object, theirs: object, same: bool
) -> None:
    assert alike(ours, theirs) is same
