"""Calls taken apart and put together again, and answers compared."""

import math
from collections import OrderedDict, namedtuple
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from torchkeep.backend.sample import (  # noqa: E402
    TENSOR,
    Answer,
    NotOptimized,
    Sample,
    Untraceable,
    flatten,
    rebuild,
    sample_of_shapes,
)

pytestmark = pytest.mark.torch

Pair = namedtuple("Pair", "a b")


class Output(OrderedDict[str, Any]):
    """Like transformers' ModelOutput: made from keywords, read by attribute."""

    def __init__(self, **values: Any) -> None:
        super().__init__(**values)
        self.__dict__.update(values)


@pytest.mark.parametrize(
    "wrap",
    [
        lambda x: x,
        lambda x: (x, x + 1),
        lambda x: [x, None],
        lambda x: {"a": x, "b": (x, [x])},
        lambda x: Pair(x, x + 1),
        lambda x: Output(logits=x, loss=None),
    ],
    ids=["tensor", "tuple", "list", "nested", "named tuple", "dict subclass"],
)
def test_a_value_is_rebuilt_as_its_own_type(wrap: Any) -> None:
    value, leaves = wrap(torch.arange(3.0)), []
    structure = flatten(value, leaves)
    again = rebuild(structure, iter(leaves))
    assert type(again) is type(value)
    assert flatten(again, found := []) == structure
    assert all(one is two for one, two in zip(leaves, found, strict=True))


def test_a_subclass_keeps_its_attributes() -> None:
    leaves: list[Any] = []
    structure = flatten(Output(logits=torch.ones(1)), leaves)
    assert rebuild(structure, iter(leaves)).logits is leaves[0]


def test_constants_are_part_of_the_structure() -> None:
    assert flatten((True, "a"), []) != flatten((1, "a"), [])
    assert flatten((1, None), []) == flatten((1, None), [])
    assert flatten(torch.ones(1), []) is TENSOR


@pytest.mark.parametrize("value", [object(), {"a": {1}}, [b"x"]], ids=repr)
def test_what_is_no_tensor_or_container_is_refused(value: Any) -> None:
    with pytest.raises(Untraceable):
        flatten(value, [])


def test_a_number_beside_tensors_is_refused_where_it_may_vary() -> None:
    with pytest.raises(Untraceable, match="int"):
        flatten((torch.ones(1), 3), [], constants=False)


def test_a_copy_shares_nothing() -> None:
    sample = Sample((torch.zeros(2),), {"flag": True})
    sample.copied().args[0].add_(1)
    assert sample.args[0].tolist() == [0, 0]


def test_a_copy_of_inference_tensors_is_usual() -> None:
    with torch.inference_mode():
        sample = Sample((torch.zeros(2),))
    assert not sample.copied().args[0].is_inference()


@pytest.mark.parametrize(("size", "other"), [(1, 2), (2, 1), (5, 2)])
def test_another_size_of_a_dimension(size: int, other: int) -> None:
    sample = Sample((torch.zeros(size, 3),), {"mask": torch.ones(size, 1)})
    args, kwargs = (lambda one: (one.args, one.kwargs))(sample.with_other_size(0))
    assert args[0].shape == (other, 3)
    assert kwargs["mask"].shape == (other, 1)


@pytest.mark.parametrize("shapes", [[(1, 3), (2, 3)], [(1, 3), ()], [(0, 3)]], ids=repr)
def test_no_other_size_where_tensors_differ(shapes: list[tuple[int, ...]]) -> None:
    with pytest.raises(NotOptimized):
        Sample(tuple(torch.zeros(shape) for shape in shapes)).with_other_size(0)


def test_only_whole_numbers_in_rows_have_lengths() -> None:
    assert Sample((torch.zeros(1, 9, dtype=torch.int64),)).has_lengths()
    assert not Sample((torch.zeros(1, 9),)).has_lengths()
    assert not Sample((torch.zeros(1, 3, 9, dtype=torch.uint8),)).has_lengths()


def test_shapes_become_tensors_without_touching_the_seed() -> None:
    torch.manual_seed(1)
    expected = torch.rand(1)
    torch.manual_seed(1)
    sample = sample_of_shapes([([1, 3, 4], "float32"), ([2], "int64"), ([2], "bool")])
    assert torch.equal(torch.rand(1), expected)
    assert [(tuple(x.shape), x.dtype) for x in sample.args] == [
        ((1, 3, 4), torch.float32),
        ((2,), torch.int64),
        ((2,), torch.bool),
    ]
    assert set(sample.args[1].tolist()) <= {0, 1}


NAN = float("nan")


@pytest.mark.parametrize(
    ("one", "two", "difference"),
    [
        ([1.0, -4.0], [1.0, -4.0], 0),
        ([1.0, -4.0], [1.0, -3.0], 0.25),
        ([0.0], [0.5], 0.5),
        ([NAN, 1.0], [NAN, 1.0], 0),
        ([NAN, 1.0], [0.0, 1.0], math.inf),
        ([0.0, 1.0], [NAN, 1.0], math.inf),
        ([math.inf], [math.inf], 0),
        ([math.inf], [-math.inf], math.inf),
        ([1, 2], [1, 2], 0),
        ([1, 2], [1, 3], math.inf),
        ([1.0], [1], math.inf),
        ([1.0], [1.0, 1.0], math.inf),
        ([], [], 0),
    ],
)
def test_answers_differ_by_a_part_of_their_largest_number(
    one: list[float], two: list[float], difference: float
) -> None:
    first, second = Answer.of(torch.tensor(one)), Answer.of(torch.tensor(two))
    assert first.difference(second) == difference


def test_answers_of_other_structure_differ() -> None:
    assert Answer.of((torch.ones(1),)).difference(Answer.of([torch.ones(1)])) == math.inf


def test_shared_memory_is_seen() -> None:
    kept = torch.ones(2)
    assert Answer.of(kept).shares_memory(Answer.of((kept,)[0]))
    assert not Answer.of(kept).shares_memory(Answer.of(kept.clone()))
