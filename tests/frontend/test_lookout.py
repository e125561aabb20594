"""The loop stays awake for as long as it is asked to, and no longer."""

import asyncio
import os
from collections.abc import Callable
from typing import Any

import pytest

from torchkeep.frontend import lookout
from torchkeep.frontend.lookout import Lookout


def turns(is_over: Callable[[], bool]) -> int:
    """Turns of the loop before it would sleep."""

    async def scenario() -> int:
        loop: Any = asyncio.get_running_loop()
        Lookout(is_over).begin()
        count = 0
        while loop._ready and count < 1000:
            await asyncio.sleep(0)
            count += 1
        return count

    return asyncio.run(scenario())


@pytest.fixture(autouse=True)
def two_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1})


def test_it_ends_with_its_time(monkeypatch: pytest.MonkeyPatch) -> None:
    assert 1 < turns(lambda: False) < 1000
    monkeypatch.setattr(lookout, "LOOKOUT_S", 60.0)
    assert turns(lambda: False) == 1000


def test_it_ends_when_the_answer_is_there() -> None:
    assert turns(lambda: True) <= 2


def test_on_one_core_there_is_nothing_to_look_out_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0})
    assert turns(lambda: False) == 0
