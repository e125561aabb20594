"""One timer for many deadlines, each of which may be the one that counts."""

import asyncio
from collections.abc import Awaitable, Callable

from torchkeep.frontend.deadline import Deadline

Scenario = Callable[[Deadline, list[str]], Awaitable[None]]


def happened(scenario: Scenario) -> list[str]:
    events: list[str] = []

    async def bounded() -> None:
        async with asyncio.timeout(10):
            await scenario(Deadline(asyncio.get_running_loop()), events)

    asyncio.run(bounded())
    return events


async def reached(deadline: Deadline, events: list[str]) -> None:
    """Until the deadline that is set has had its effect."""
    while deadline.is_set:  # noqa: ASYNC110 - a plain attribute
        await asyncio.sleep(0.005)


def test_only_the_last_one_happens_and_once() -> None:
    async def scenario(deadline: Deadline, events: list[str]) -> None:
        deadline.set(0.01, lambda: events.append("first"))
        deadline.set(0.05, lambda: events.append("later"))
        await reached(deadline, events)
        await asyncio.sleep(0.05)

    assert happened(scenario) == ["later"]


def test_a_sooner_one_does_not_wait_for_the_timer_of_a_later_one() -> None:
    async def scenario(deadline: Deadline, events: list[str]) -> None:
        deadline.set(3600, lambda: events.append("later"))
        deadline.set(0.01, lambda: events.append("sooner"))
        await reached(deadline, events)

    assert happened(scenario) == ["sooner"]


def test_what_is_cleared_or_closed_does_not_happen() -> None:
    async def scenario(deadline: Deadline, events: list[str]) -> None:
        deadline.set(0.0, lambda: events.append("cleared"))
        deadline.clear()
        assert not deadline.has_passed
        await asyncio.sleep(0.02)
        deadline.set(0.0, lambda: events.append("closed"))
        deadline.close()
        await asyncio.sleep(0.02)
        assert not deadline.is_set

    assert happened(scenario) == []


def test_it_has_passed_before_the_loop_has_seen_it() -> None:
    async def scenario(deadline: Deadline, events: list[str]) -> None:
        assert not deadline.has_passed
        deadline.set(0.0, lambda: events.append("seen"))
        assert deadline.has_passed
        assert events == []
        deadline.set(3600, lambda: events.append("never"))
        assert not deadline.has_passed
        deadline.close()

    assert happened(scenario) == []


def test_an_action_may_set_the_next_one() -> None:
    async def scenario(deadline: Deadline, events: list[str]) -> None:
        def first() -> None:
            events.append("first")
            deadline.set(0.01, lambda: events.append("second"))

        deadline.set(0.0, first)
        await reached(deadline, events)

    assert happened(scenario) == ["first", "second"]
