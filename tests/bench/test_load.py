"""What wrk's output is read as; wrk itself runs where it is installed."""

import shutil
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar

import pytest
from serving import serving

from bench.load import LoadFailed, parse, run_requests, run_wrk

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


def test_bytes_are_counted_where_the_script_does() -> None:
    assert parse(CLEAN).bytes_read == 0
    assert parse(CLEAN.replace('"errors"', '"bytes": 123, "errors"')).bytes_read == 123


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


class Counting(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    seen: ClassVar[list[bytes]] = []

    def do_POST(self) -> None:
        self.seen.append(self.rfile.read(int(self.headers["Content-Length"])))
        self.send_response(200)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"ok")

    def log_message(self, *_: object) -> None:
        pass


@pytest.mark.skipif(shutil.which("wrk") is None, reason="wrk is not installed")
def test_whole_requests_are_sent_in_turn(tmp_path: Path) -> None:
    numbers = [b"%03d" % number for number in range(1000)]
    heads = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\n"
    (tmp_path / "requests").write_bytes(b"".join(heads + number for number in numbers))
    with serving(ThreadingHTTPServer(("127.0.0.1", 0), Counting)) as server:
        url = f"http://127.0.0.1:{server.server_port}/"
        result = run_requests(url, tmp_path / "requests", len(heads) + 3, 1, 1)
    assert result.errors == {}
    assert result.bytes_read > result.requests
    first = numbers.index(Counting.seen[0])  # wrk looks at one or two itself
    expected = (numbers * (len(Counting.seen) // 1000 + 2))[first:]
    assert Counting.seen == expected[: len(Counting.seen)]
