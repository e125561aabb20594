"""Micro-batching: a batch in parts, of which one is prepared while another is computed."""

import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import Any

_STEPS = ("preprocess", "inference", "postprocess")


class MicroBatching:
    """Stands in for a handler's `handle`: assign `self.handle = MicroBatching(self)` in `__init__`.

    Each part of a batch passes the handler's `preprocess`, `inference` and `postprocess`, each
    step in threads of its own, `parallelism[step]` of them, one unless set. The answers come in
    the order of the batch. What a step raises, the call raises, once all parts are through.
    """

    def __init__(
        self,
        parent_handler: Any,
        micro_batch_size: int = 1,
        parallelism: Mapping[str, int] | None = None,
    ) -> None:
        self.handler = parent_handler
        self.micro_batch_size = micro_batch_size
        self._pools: dict[str, ThreadPoolExecutor] = {}
        self._part = threading.local()
        self.parallelism = parallelism or {}

    @property
    def parallelism(self) -> dict[str, int]:
        """Threads by step."""
        return self._parallelism

    @parallelism.setter
    def parallelism(self, threads: Mapping[str, int]) -> None:
        unknown = sorted(set(threads) - set(_STEPS))
        if unknown:
            raise ValueError(f"micro-batching knows the steps {', '.join(_STEPS)}, not {unknown}")
        if any(count < 1 for count in threads.values()):
            raise ValueError(f"each step of micro-batching needs a thread at least: {threads}")
        self.shutdown()
        self._parallelism = dict(threads)

    def __call__(self, data: Sequence[Any], context: Any) -> list[Any]:
        """Answer one batch."""
        self.handler.context = context
        size = self.micro_batch_size
        if size < 1:
            raise ValueError(f"micro_batch_size must be at least 1, not {size}")
        parts = [data[start : start + size] for start in range(0, len(data), size)]
        answers: list[Future[Any]] = [Future() for _ in parts]
        self._start_threads()
        for index, part in enumerate(parts):
            self._submit(0, index, part, answers[index])
        wait(answers)  # nothing of this batch runs on beside the next
        return [answer for part in answers for answer in part.result()]

    def get_micro_batch_idx(self) -> int:
        """In a step: the number of the part it works on, from 0."""
        index: int = self._part.index
        return index

    def shutdown(self) -> None:
        """End the threads; another call starts new ones."""
        pools, self._pools = self._pools, {}
        for pool in pools.values():
            pool.shutdown()

    def _start_threads(self) -> None:
        if not self._pools:
            self._pools = {
                step: ThreadPoolExecutor(self._parallelism.get(step, 1), step) for step in _STEPS
            }

    def _submit(self, step: int, index: int, value: Any, answer: "Future[Any]") -> None:
        self._pools[_STEPS[step]].submit(self._run, step, index, value, answer)

    def _run(self, step: int, index: int, value: Any, answer: "Future[Any]") -> None:
        self._part.index = index
        try:
            result = getattr(self.handler, _STEPS[step])(value)
            if step + 1 < len(_STEPS):
                self._submit(step + 1, index, result, answer)
            else:
                answer.set_result(result)
        except BaseException as error:
            answer.set_exception(error)
