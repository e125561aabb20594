"""How much of the frontend's time the output of workers gets."""

import pytest

from torchkeep.frontend import output_pace
from torchkeep.frontend.output_pace import MIN_PAUSE_S, REST, OutputPace


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(output_pace, "monotonic", clock)
    return clock


def test_a_line_now_and_then_is_read_at_once(clock: Clock) -> None:
    pace = OutputPace()
    for _ in range(100):
        assert pace.pause_s(0.0001) == 0
        clock.now += 0.001


def test_a_flood_is_read_in_a_fifth_of_the_time(clock: Clock) -> None:
    pace, began, spent_s = OutputPace(), clock.now, 0.0
    for _ in range(1000):
        clock.now += 0.0002
        spent_s += 0.0002
        clock.now += pace.pause_s(0.0002)
    # A little more: rests that are saved up go on while others are read.
    assert spent_s / (clock.now - began) == pytest.approx(1 / (1 + REST), abs=0.05)


def test_all_pipes_share_one_pace(clock: Clock) -> None:
    pace = OutputPace()
    pauses = [pace.pause_s(0.001) for _ in range(3)]
    assert pauses == pytest.approx([REST * 0.001, 2 * REST * 0.001, 3 * REST * 0.001])


def test_short_rests_are_saved_up(clock: Clock) -> None:
    pace, spent_s = OutputPace(), MIN_PAUSE_S / REST / 2
    assert pace.pause_s(spent_s * 0.99) == 0
    assert pace.pause_s(spent_s * 1.02) >= MIN_PAUSE_S
