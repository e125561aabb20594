"""Models that several processes run together, through a whole server: parallelType."""

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from conformance.archives import build_archives
from torchkeep.runtime.kernel import kernel_layers

pytestmark = pytest.mark.torch


@pytest.fixture
def store(tmp_path: Path) -> Path:
    names = ("ranks", "ranks_pp", "ranks_custom", "ranks_no_load", "ranks_online", "rpc_ranks")
    build_archives(tmp_path / "store", names)
    return tmp_path / "store"


def asked(server: Any, model: str, question: str) -> dict[str, Any]:
    status, _, body = server.request("POST", f"/predictions/{model}", question.encode())
    assert status == 200, body
    answer: dict[str, Any] = json.loads(body)
    return answer


def processes(group: int) -> Iterator[psutil.Process]:
    for process in psutil.process_iter():
        try:
            if os.getpgid(process.pid) == group and process.status() != psutil.STATUS_ZOMBIE:
                yield process
        except (psutil.NoSuchProcess, ProcessLookupError):
            continue


def test_ranks_compute_together_and_end_together(
    store: Path, server_factory: Callable[..., Any], poll: Callable[..., Any]
) -> None:
    server = server_factory(store=store, models=["ranks.mar"])
    server.wait_until_ready("ranks")

    first = asked(server, "ranks", "sum")
    assert (first["total"], first["sum"]) == (3.0, 3.0)
    assert first["environment"] | {"OMP_NUM_THREADS": ""} == {
        "RANK": "0",
        "LOCAL_RANK": "0",
        "WORLD_SIZE": "2",
        "TORCHELASTIC_RUN_ID": "ranks_29500",
        "TORCHELASTIC_MAX_RESTARTS": "1",
        "LOGLEVEL": "INFO",
        "OMP_NUM_THREADS": "",
    }
    assert asked(server, "ranks", "calls")["all_calls"] == [2.0, 2.0]  # `tp` asks every rank
    assert asked(server, "ranks", "limits")["no_new_privileges"] == [1.0, 1.0]
    assert len(list(processes(first["group"]))) == 2

    # The end of another rank ends the worker, and a new one comes.
    status, _, body = server.request("POST", "/predictions/ranks", b"end")
    assert (status, json.loads(body)["message"]) == (507, "Worker died.")
    poll(lambda: not list(processes(first["group"])), "the ranks have ended")
    server.wait_for_lines("rank 1 ended with status -9, and the worker with it")
    server.wait_until_ready("ranks")
    again = asked(server, "ranks", "sum")
    assert (again["sum"], again["calls"]) == (3.0, 1)

    status, _, _ = server.request("DELETE", "/models/ranks", port="management")
    assert status == 200
    poll(lambda: not list(processes(again["group"])), "the ranks have ended")


@pytest.mark.long
def test_the_kinds_of_parallel_models(store: Path, server_factory: Callable[..., Any]) -> None:
    models = ["ranks_pp.mar", "ranks_custom.mar", "rpc_ranks.mar"]
    server = server_factory(store=store, models=models)
    server.wait_until_ready("ranks_pp", "ranks_custom", "rpc_ranks")
    # TorchServe: such workers are numbered apart, by as many as they have ranks.
    ids = {server.workers(model.removesuffix(".mar"))[0]["id"] for model in models}
    assert ids == {"29500", "29502", "29504"}
    answer = asked(server, "ranks_pp", "plain")
    assert (answer["total"], answer["calls"]) == (3.0, 1)
    answer = asked(server, "ranks_custom", "plain")  # it arranges everything itself
    assert answer["environment"]["RANK"] is None
    assert len(list(processes(answer["group"]))) == 1
    _, _, body = server.request("POST", "/predictions/rpc_ranks", b"4.5")
    assert body == b"45.0 by 2 from 0"

    # A rank that cannot load refuses for all, in its own words.
    path = "/models?url=ranks_no_load.mar&initial_workers=1&synchronous=true"
    status, _, body = server.request("POST", path, port="management")
    assert status == 500
    assert "rank 1: ValueError: rank 1 cannot load" in json.loads(body)["message"]


@pytest.mark.long
def test_a_strict_sandbox_holds_every_rank(store: Path, server_factory: Callable[..., Any]) -> None:
    if missing := kernel_layers().missing_for_strict:
        pytest.skip(missing)
    config = {"sandbox": "strict", "sandbox_allow": "network", "handler_log": "console"}
    server = server_factory(store=store, models=["ranks_online.mar"], config=config)
    server.wait_until_ready("ranks_online")
    assert asked(server, "ranks_online", "sum")["sum"] == 3.0
    assert asked(server, "ranks_online", "reach")["refused"] == [1.0, 1.0]
    # Without a network the ranks cannot meet.
    path = "/models?url=ranks.mar&initial_workers=1&synchronous=true"
    status, _, body = server.request("POST", path, port="management")
    assert status == 500
    assert "sandbox: {network: true}" in json.loads(body)["message"]
