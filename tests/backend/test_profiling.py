"""TS_BENCHMARK: the profile that a worker leaves."""

import pstats
from pathlib import Path

import pytest

from torchkeep.backend.profiling import is_asked_for, profiled


@pytest.mark.parametrize(
    ("value", "expected"),
    [("True", True), ("true", True), ("TRUE", True), ("1", False), ("tRue", False), ("", False)],
)
def test_who_asks_for_it(value: str, expected: bool) -> None:
    assert is_asked_for({"TS_BENCHMARK": value}) is expected
    assert not is_asked_for({})


def work() -> None:
    sum(range(1000))


def test_a_profile_tells_what_ran(tmp_path: Path) -> None:
    profiled(work, tmp_path / "p.prof")
    stats = pstats.Stats(str(tmp_path / "p.prof"))
    assert any(name == "work" for _, _, name in stats.stats)  # type: ignore[attr-defined]


def test_a_profile_is_kept_of_what_ends_the_worker(tmp_path: Path) -> None:
    def leave() -> None:
        raise SystemExit(3)

    with pytest.raises(SystemExit):
        profiled(leave, tmp_path / "p.prof")
    assert (tmp_path / "p.prof").exists()


def test_a_place_that_cannot_be_written_costs_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    profiled(work, tmp_path / "none" / "p.prof")
    assert "no profile is kept" in capsys.readouterr().err
