"""What wrk's output is read as; wrk itself runs where it is installed."""

import shutil
from pathlib import Path

import pytest

from bench.load import LoadFailed, parse, run_wrk

REPORT = """\
Running 2s test @ http://127.0.0.1:8080/predictions/echo
  1 threads and 32 connections
  Thread Stats   Avg      Stdev     Max   +/- Stdev
    Latency    12.51ms    2.10ms  20.19ms   75.00%
    Req/Sec     2.52k   150.00     2.80k    68.00%
  7533 requests in 3.01s, 2.10MB read
Requests/sec:   2500.58
Transfer/sec:    715.00KB
"""
CLEAN = (
    'RESULT {"requests": 7533, "duration_us": 3012503, "p50_us": 12543, "p99_us": 20188, '
    '"errors": {"connect": 0, "read": 0, "write": 0, "timeout": 0, "status": 0}}\n'
)


def test_result_line_is_read() -> None:
    result = parse(REPORT + CLEAN)
    assert result.requests == 7533
    assert result.requests_per_s == pytest.approx(2500.58, abs=0.01)
    assert (result.p50_ms, result.p99_ms) == (12.543, 20.188)
    assert result.errors == {}


def test_only_errors_that_happened_are_kept() -> None:
    spoiled = CLEAN.replace('"status": 0', '"status": 12').replace('"read": 0', '"read": 3')
    assert parse(REPORT + spoiled).errors == {"status": 12, "read": 3}


def test_output_without_result_is_an_error() -> None:
    with pytest.raises(LoadFailed, match="RESULT"):
        parse(REPORT)


def test_round_without_an_answer_is_an_error() -> None:
    with pytest.raises(LoadFailed, match="not one answer"):
        parse(CLEAN.replace('"requests": 7533', '"requests": 0'))


@pytest.mark.skipif(shutil.which("wrk") is None, reason="wrk is not installed")
def test_wrk_that_reaches_nobody_is_an_error(tmp_path: Path) -> None:
    payload = tmp_path / "payload"
    payload.write_bytes(b"hello")
    with pytest.raises(LoadFailed, match="wrk"):
        run_wrk("http://127.0.0.1:9/", payload, "text/plain", connections=1, seconds=1)
