"""Which GPU each worker is told to use. Only numbers here: what a GPU is, torch knows.

TorchServe's rules: workers of all models take turns over all GPUs, or over the `deviceIds` of
their model; a worker of a parallel model takes as many in a row as it has ranks.
"""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Assignment:
    """What one worker gets: a number for its context, and the GPUs that its ranks may see."""

    gpu_id: int = -1  # -1: none
    visible: tuple[int, ...] = ()

    @property
    def environment(self) -> dict[str, str]:
        """What hides all other GPUs from the worker."""
        if not self.visible:
            return {}
        return {"CUDA_VISIBLE_DEVICES": ",".join(map(str, self.visible))}


class Gpus:
    """The GPUs of the server, given out in turn."""

    def __init__(self, count: int = 0) -> None:
        self.count = count
        self._turn = 0  # of all models together

    def usable_ids(self, asked: Sequence[int] | None) -> list[int] | None:
        """The `deviceIds` of a model; None where one of them is no GPU here."""
        if not asked or not self.count or max(asked) >= self.count:
            return None
        return list(asked)

    def next(self, turns: "Turns", level: int = 0) -> Assignment:
        """What the next worker of a model gets; `level` is the number of its ranks, if it has."""
        if not self.count:
            return Assignment()
        if level:
            # TorchServe: number 0, of those that are visible, for every rank.
            return Assignment(0, turns.next_row(level, self.count))
        if turns.ids:
            return Assignment(turns.next_id())
        # TorchServe: the first worker gets GPU 1 where there are two or more.
        self._turn = (self._turn + 1) % self.count
        return Assignment(self._turn)


class Turns:
    """Whose turn it is among the GPUs of one model."""

    def __init__(self, ids: Sequence[int] | None = None) -> None:
        self.ids = list(ids or ())
        self._turn = 0

    def next_id(self) -> int:
        found = self.ids[self._turn % len(self.ids)]
        self._turn += 1
        return found

    def next_row(self, level: int, count: int) -> tuple[int, ...]:
        """`level` GPUs in a row, from where the last worker's end."""
        ids = self.ids or list(range(count))
        start = self._turn
        self._turn += level
        return tuple(ids[(start + one) % len(ids)] for one in range(level))
