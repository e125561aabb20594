"""Micro-batching: parts of a batch, side by side, answered in order."""

import threading
from typing import Any

import pytest

from ts.handler_utils.micro_batching import MicroBatching


class Handler:
    """Answers each row with what it passed; `meeting` is where threads of a step meet."""

    context: Any = None

    def __init__(self, meeting: threading.Barrier | None = None) -> None:
        self.handle = MicroBatching(self)
        self.meeting = meeting
        self.sizes: list[int] = []

    def preprocess(self, rows: list[str]) -> list[str]:
        if self.meeting is not None:
            self.meeting.wait(20)
        return [f"{row}.{self.handle.get_micro_batch_idx()}" for row in rows]

    def inference(self, rows: list[str]) -> list[str]:
        if any(row.startswith("bad") for row in rows):
            raise ValueError("a bad row")
        self.sizes.append(len(rows))
        return [f"{row}.{threading.current_thread().name.partition('_')[0]}" for row in rows]

    def postprocess(self, rows: list[str]) -> list[str]:
        return [f"{row}.{self.handle.get_micro_batch_idx()}" for row in rows]


def test_a_batch_is_answered_in_order_whatever_its_parts() -> None:
    handler = Handler()
    handler.handle.micro_batch_size = 2
    assert handler.handle(list("abcde"), "context") == [
        "a.0.inference.0",
        "b.0.inference.0",
        "c.1.inference.1",
        "d.1.inference.1",
        "e.2.inference.2",
    ]
    assert sorted(handler.sizes) == [1, 2, 2]
    assert handler.context == "context"
    assert handler.handle([], None) == []
    handler.handle.shutdown()


def test_threads_of_one_step_run_side_by_side() -> None:
    handler = Handler(threading.Barrier(3))
    handler.handle.parallelism = {"preprocess": 3}
    assert len(handler.handle(list("abc"), None)) == 3
    assert handler.handle.parallelism == {"preprocess": 3}
    handler.handle.shutdown()


def test_what_a_step_raises_is_raised_and_the_next_batch_is_answered() -> None:
    # TorchServe's call never returns then.
    handler = Handler()
    with pytest.raises(ValueError, match="a bad row"):
        handler.handle(["a", "bad", "c"], None)
    assert len(handler.handle(["a"], None)) == 1
    handler.handle.shutdown()


@pytest.mark.parametrize("threads", [{"inference": 0}, {"guessing": 1}])
def test_an_impossible_parallelism_is_refused(threads: dict[str, int]) -> None:
    handler = Handler()
    with pytest.raises(ValueError, match=r"inference"):
        handler.handle.parallelism = threads


def test_parts_of_no_rows_are_refused() -> None:
    with pytest.raises(ValueError, match="micro_batch_size must be at least 1, not 0"):
        MicroBatching(Handler(), micro_batch_size=0)(["a"], None)
