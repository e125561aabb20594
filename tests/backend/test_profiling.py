"""A worker's profile, where the environment asks for one."""

import pstats
from pathlib import Path

import pytest

from torchkeep.backend.profiling import PROFILE, Profiler, is_profiling_asked_for


def handle(number: int) -> int:
    return number + 1


@pytest.mark.parametrize(
    ("value", "is_asked"),
    [("True", True), ("true", True), ("TRUE", True), ("1", False), ("", False), (None, False)],
)
def test_ts_benchmark_asks_for_a_profile(
    value: str | None, is_asked: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("TS_BENCHMARK", raising=False)
    if value is not None:
        monkeypatch.setenv("TS_BENCHMARK", value)
    assert is_profiling_asked_for() == is_asked


def test_the_profile_is_where_torchserve_writes_it() -> None:
    assert PROFILE == "/tmp/tsPythonProfile.prof"


def test_calls_add_up_in_a_file_that_pstats_reads(tmp_path: Path) -> None:
    path = tmp_path / "profile"
    profiler = Profiler(str(path))
    assert [profiler.call(handle, number) for number in (1, 2)] == [2, 3]
    counts = {name: row[0] for (_, _, name), row in pstats.Stats(str(path)).stats.items()}  # type: ignore[attr-defined]
    assert counts["handle"] == 2


def test_a_call_that_raises_is_profiled_too(tmp_path: Path) -> None:
    path = tmp_path / "profile"
    with pytest.raises(TypeError):
        Profiler(str(path)).call(handle, "text")  # type: ignore[arg-type]
    assert path.exists()


def test_a_link_in_its_place_is_not_followed_and_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "profile").symlink_to(tmp_path / "other")
    profiler = Profiler(str(tmp_path / "profile"))
    assert [profiler.call(handle, number) for number in (1, 2)] == [2, 3]
    assert caplog.text.count("cannot be written: Too many levels of symbolic links") == 1
    assert not (tmp_path / "other").exists()
