"""Very many requests cost a server nothing that stays: descriptors and memory are as before."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
from many_requests import Load, Target

HERE = Path(__file__).parent
ECHO = """
def handle(data, context):
    if data is not None:
        return [bytes(row["body"]) for row in data]
"""
CONNECTIONS = 16
WARM_UP = 5_000  # requests, until buffers and free lists have their size
MAX_GROWTH = 1 << 20  # bytes per 100 000 requests
NOISE = 3 << 19  # bytes: what the allocator's own rounding moves between two looks


TARGET = Target("/predictions/echo", lambda n: b"request %d" % n, lambda b, a: a == b)


@pytest.mark.parametrize(
    "requests",
    [
        pytest.param(10_000, id="short"),
        pytest.param(200_000, id="long", marks=[pytest.mark.long, pytest.mark.timeout(600)]),
    ],
)
def test_many_requests_leave_nothing_behind(
    requests: int, tmp_path: Path, server_factory: Callable[..., Any], poll: Callable[..., Any]
) -> None:
    model = tmp_path / "store" / "echo"
    model.mkdir(parents=True)
    (model / "handler.py").write_text(ECHO)
    server = server_factory(store=tmp_path / "store")
    url = "/models?url=echo&model_name=echo&handler=handler.py&initial_workers=1&synchronous=true"
    assert server.request("POST", url, port="management")[0] == 200

    def send(count: int) -> None:
        outcomes = asyncio.run(Load(server.inference, TARGET, CONNECTIONS, count).run())
        assert not outcomes.wrong, outcomes.wrong[:5]
        assert outcomes.counts == {"answered": count}

    def look() -> tuple[int, dict[int, int]]:
        family = [psutil.Process(server.pid), *server.descendants()]
        return family[0].num_fds(), {one.pid: one.memory_info().rss for one in family}

    send(WARM_UP)
    descriptors, memory = look()
    send(requests)
    # The last connections of ours may still be closing at either look.
    poll(lambda: look()[0] <= descriptors, "no more descriptors than before", 10)
    _, memory_after = look()
    assert memory_after.keys() == memory.keys()
    growth = {pid: memory_after[pid] - memory[pid] for pid in memory}
    allowed = MAX_GROWTH * requests / 100_000 + NOISE
    assert all(grown < allowed for grown in growth.values()), growth
