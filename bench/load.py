"""Rounds of `wrk`: one fixed POST over a number of connections, and what came of it."""

import json
import subprocess
from dataclasses import dataclass
from pathlib import Path

SCRIPT = Path(__file__).resolve().parent / "post.lua"
REQUESTS_SCRIPT = SCRIPT.with_name("requests.lua")
MARK = "RESULT "
GRACE_S = 30  # for wrk to end by itself after its round


class LoadFailed(Exception):
    """wrk did not run, or said nothing that we understand."""


@dataclass(frozen=True, slots=True)
class LoadResult:
    """What one round of wrk counted."""

    requests: int
    duration_s: float
    p50_ms: float
    p99_ms: float
    errors: dict[str, int]  # only those that happened, by wrk's name for them
    bytes_read: int = 0  # heads included; requests.lua counts them

    @property
    def requests_per_s(self) -> float:
        return self.requests / self.duration_s


def run_wrk(
    url: str, payload: Path, content_type: str, connections: int, seconds: int
) -> LoadResult:
    """One round. Its errors are counted, not raised: the caller decides what they spoil."""
    return _run(SCRIPT, url, [str(payload), content_type], connections, seconds)


def run_requests(
    url: str, requests: Path, bytes_of_each: int, connections: int, seconds: int
) -> LoadResult:
    """One round of whole requests from a file; where they are too few it starts again."""
    return _run(REQUESTS_SCRIPT, url, [str(requests), str(bytes_of_each)], connections, seconds)


def _run(
    script: Path, url: str, arguments: list[str], connections: int, seconds: int
) -> LoadResult:
    command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--timeout", "30s"]
    command += ["-s", str(script), url, "--", *arguments]
    run = subprocess.run(command, capture_output=True, text=True, timeout=seconds + GRACE_S)
    if run.returncode != 0:
        raise LoadFailed(f"{' '.join(command)}: {(run.stderr or run.stdout).strip()}")
    return parse(run.stdout)


def parse(output: str) -> LoadResult:
    """The line that post.lua writes at the end, below wrk's own report."""
    for line in output.splitlines():
        if line.startswith(MARK):
            break
    else:
        raise LoadFailed(f"wrk wrote no line that starts with {MARK!r}: {output.strip()!r}")
    counted = json.loads(line.removeprefix(MARK))
    if not counted["requests"] or not counted["duration_us"]:
        raise LoadFailed(f"not one answer within the round: {line}")
    return LoadResult(
        requests=counted["requests"],
        duration_s=counted["duration_us"] / 1e6,
        p50_ms=counted["p50_us"] / 1e3,
        p99_ms=counted["p99_us"] / 1e3,
        bytes_read=counted.get("bytes", 0),
        errors={kind: count for kind, count in counted["errors"].items() if count},
    )
