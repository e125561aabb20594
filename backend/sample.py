"""A call of a model, taken apart: its tensors in a row, and the structure that held them.

What is compiled by tracing takes and gives tensors alone; everything else about a call (keyword
names, flags, the class of the output) is fixed when it is traced. So a later call may use the
traced form only if its structure is equal to the sample's.
"""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import torch

# Nested tuples that compare with `==`: TENSOR, or (type, keys or None, children),
# or (type, constant). Types are compared too, as 1 == True.
Structure: TypeAlias = Any
TENSOR: Structure = "tensor"
_CONSTANTS = (type(None), bool, int, float, str)


class NotOptimized(Exception):
    """A model, or one form of it, is not used otherwise than it was; the text says why."""


class Untraceable(NotOptimized):
    """A value is neither a tensor nor a container of tensors."""

    def __init__(self, kind: type) -> None:
        super().__init__(f"it takes or answers a {kind.__name__}")


@dataclass(frozen=True)
class Sample:
    """The arguments of one call: a user's data, never shown and kept no longer than needed."""

    args: tuple[Any, ...] = ()
    kwargs: dict[str, Any] = field(default_factory=dict)

    def copied(self) -> "Sample":
        """With tensors of its own, as a model may write into its input."""
        structure, leaves = self.flatten()
        args, kwargs = rebuild(structure, iter([leaf.detach().clone() for leaf in leaves]))
        return Sample(args, kwargs)

    def flatten(self) -> "tuple[Structure, list[Any]]":
        leaves: list[Any] = []
        return flatten((self.args, self.kwargs), leaves), leaves

    def with_other_size(self, dimension: int) -> "Sample":
        """The same call with one dimension of another size: 2 in place of 1, else half."""
        structure, leaves = self.flatten()
        sizes = {leaf.shape[dimension] if leaf.ndim > dimension else 0 for leaf in leaves}
        if len(sizes) != 1 or 0 in sizes:
            raise NotOptimized(f"its tensors differ in dimension {dimension}")
        (size,) = sizes
        rows = torch.arange(2 if size == 1 else size // 2) % size
        args, kwargs = rebuild(structure, iter([x.index_select(dimension, rows) for x in leaves]))
        return Sample(args, kwargs)

    def has_lengths(self) -> bool:
        """Whether dimension 1 is a length: true of token numbers, not of channels."""
        _, leaves = self.flatten()
        return all(x.ndim == 2 and not x.is_floating_point() for x in leaves)


@dataclass(frozen=True)
class Answer:
    """What a call returned, with its numbers still where the model left them."""

    structure: Structure
    leaves: list[Any]

    @classmethod
    def of(cls, output: Any) -> "Answer":
        leaves: list[Any] = []
        return cls(flatten(output, leaves), leaves)

    def difference(self, other: "Answer") -> float:
        """The largest difference in any tensor, as a part of its largest number.

        Infinite where structure, shape, dtype, whole numbers or infinities differ.
        """
        if self.structure != other.structure:
            return math.inf
        pairs = zip(self.leaves, other.leaves, strict=True)
        return max((_difference(one, two) for one, two in pairs), default=0.0)

    def shares_memory(self, other: "Answer") -> bool:
        """Whether writing into one answer would change the other."""
        pairs = zip(self.leaves, other.leaves, strict=True)
        return any(one.numel() and one.data_ptr() == two.data_ptr() for one, two in pairs)


def sample_of_shapes(shapes: Iterable[tuple[Sequence[int], str]]) -> Sample:
    """Inputs of these shapes and dtypes, the same each time, from a generator of their own."""
    generator = torch.Generator().manual_seed(0)
    return Sample(
        tuple(_tensor(shape, getattr(torch, dtype), generator) for shape, dtype in shapes)
    )


def _tensor(shape: Sequence[int], dtype: Any, generator: Any) -> Any:
    if dtype.is_floating_point:
        return torch.randn(shape, generator=generator).to(dtype)
    # 0 and 1 are valid as token numbers, masks, types and flags alike.
    return torch.randint(0, 2, shape, generator=generator).to(dtype)


def flatten(value: Any, leaves: list[Any], constants: bool = True) -> Structure:
    """Append the tensors of `value` to `leaves` and return what held them.

    Without `constants` only None may stand beside tensors: the numbers in an output may depend
    on the input.
    """
    kind = type(value)
    if kind is torch.Tensor or kind is torch.nn.Parameter:
        leaves.append(value)
        return TENSOR
    if isinstance(value, dict):
        keys = tuple(value)
        return kind, keys, tuple([flatten(value[key], leaves, constants) for key in keys])
    if kind is tuple or kind is list or hasattr(kind, "_fields"):
        return kind, None, tuple([flatten(item, leaves, constants) for item in value])
    if kind in _CONSTANTS and (constants or value is None):
        return kind, value
    raise Untraceable(kind)


def rebuild(structure: Structure, leaves: Iterator[Any]) -> Any:
    """The value that `flatten` took apart, around other tensors."""
    if structure is TENSOR:
        return next(leaves)
    if len(structure) == 2:
        return structure[1]
    kind, keys, children = structure
    values = [rebuild(child, leaves) for child in children]
    if keys is None:
        return kind(*values) if hasattr(kind, "_fields") else kind(values)
    mapping = dict(zip(keys, values, strict=True))
    # Such as transformers' ModelOutput: a dataclass that is a dict.
    return mapping if kind is dict else kind(**mapping)


def _difference(one: Any, two: Any) -> float:
    if one.shape != two.shape or one.dtype != two.dtype:
        return math.inf
    if not one.is_floating_point():
        return 0.0 if torch.equal(one, two) else math.inf
    one, two = one.double(), two.double()
    if not torch.equal(one.isnan(), two.isnan()):
        return math.inf
    usual = one.isfinite()
    if not torch.equal(one.nan_to_num()[~usual], two.nan_to_num()[~usual]):
        return math.inf
    one, two = one[usual], two[usual]
    if not two.isfinite().all() or not one.numel():
        return math.inf if one.numel() else 0.0
    return float((one - two).abs().max()) / (float(one.abs().max()) or 1.0)
