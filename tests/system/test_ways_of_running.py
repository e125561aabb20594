"""Sequences, continuous batching, coroutines, and requests that fail alone, on a whole server.

What TorchServe answers to one request after the other is in facts.json; here requests meet, and
clients leave.
"""

import contextlib
import json
import os
import signal
import socket
import struct
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from conformance.archives import build_archives

MODELS = (
    "short_sequences",
    "steps",
    "sequence_steps",
    "coroutines",
    "coroutine_pairs",
    "coroutine_ticket",
    "some_fail",
)
KEYS = {
    "ts_header_key_sequence_id": "x-sequence",
    "ts_header_key_sequence_start": "x-sequence-start",
}

Poll = Callable[..., Any]
Ask = Callable[..., "Future[tuple[int, Any, bytes]]"]


@pytest.fixture(scope="module")
def server(
    shared_server_factory: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory
) -> Any:
    store, logs = tmp_path_factory.mktemp("store"), tmp_path_factory.mktemp("logs")
    build_archives(store, [*MODELS, "endless_sequences"])
    server = shared_server_factory(
        [f"{name}.mar" for name in MODELS], store, KEYS, env={"LOG_LOCATION": str(logs)}
    )
    server.wait_until_ready(*MODELS)
    server.model_log = logs / "model_log.log"
    return server


@pytest.fixture
def begin(server: Any) -> Iterator[Ask]:
    """Sends a request, and returns what its answer will be."""
    with asking(server) as ask:
        yield ask


@contextlib.contextmanager
def asking(server: Any) -> Iterator[Ask]:
    with ThreadPoolExecutor(16) as pool:

        def ask(model: str, body: bytes = b"x", **headers: str) -> "Future[Any]":
            spelled = {name.replace("_", "-"): value for name, value in headers.items()}
            return pool.submit(server.request, "POST", f"/predictions/{model}", body, spelled)

        yield ask


def told(server: Any, text: str) -> int:
    """How often a handler has printed this."""
    return int(server.model_log.read_text().count(text))


def leave(server: Any, model: str, headers: Mapping[str, str], when: Callable[[], Any]) -> None:
    """Ask, and close the connection by a reset once `when` has returned."""
    host, port = server.inference.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port))) as client:
        lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        head = f"POST /predictions/{model} HTTP/1.1\r\nHost: h\r\n{lines}Content-Length: 0\r\n\r\n"
        client.sendall(head.encode())
        when()
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def test_a_handler_fails_some_requests_of_a_batch(begin: Ask) -> None:
    answers = [begin("some_fail", body) for body in (b"good", b"bad", b"broken")]
    good, bad, broken = (answer.result() for answer in answers)
    assert (good[0], good[2]) == (200, b"fine, of 3")
    refusal = json.loads(bad[2])
    assert (bad[0], refusal["code"], refusal["type"]) == (422, 422, "InternalServerException")
    assert refusal["message"].startswith("row ")
    assert refusal["message"].endswith(" of 3")
    assert (broken[0], json.loads(broken[2])["message"]) == (503, "Prediction failed")


def seen(answer: tuple[int, Any, bytes]) -> tuple[int, int]:
    return answer[0], json.loads(answer[2]).get("seen")


def test_sequences_have_a_worker_each_and_wait_their_turn(
    server: Any, begin: Ask, poll: Poll
) -> None:
    """With headers of our own names, which the handler's context knows too."""

    def room() -> bool:
        return bool(begin("short_sequences", x_sequence="x").result()[0] == 200)

    poll(room, "no sequence of another test is open")
    status, _, body = begin("short_sequences", tell_id="yes").result()
    assert status == 200
    answer = json.loads(body)
    assert answer["sequence"].startswith("ts-seq-")
    # No third sequence is opened, and of one sequence only one more request may wait.
    refused = begin("short_sequences", x_sequence="y").result()
    assert refused[0] == 503
    assert b"or exceeds maxSequenceJobQueueSize" in refused[2]
    busy = begin("short_sequences", x_sequence="x", take_s="1")
    poll(lambda: not server_queue(server, "short_sequences"), "it is with its worker")
    time.sleep(0.2)  # its batch leaves 50 ms after it came, and nothing shows that
    queued = begin("short_sequences", x_sequence="x")
    poll(lambda: server_queue(server, "short_sequences") == 1, "one waits")
    assert begin("short_sequences", x_sequence="x").result()[0] == 503
    other = begin("short_sequences", x_sequence=answer["sequence"])
    assert seen(other.result()) == (200, 2)  # by another worker meanwhile
    assert not busy.done()
    assert (seen(busy.result())[1], seen(queued.result())[1]) == (2, 3)
    poll(lambda: begin("short_sequences", x_sequence="y").result()[0] == 200, "one was idle")


def server_queue(server: Any, model: str) -> int:
    _, _, body = server.request("GET", f"/models/{model}", port="management")
    pending: int = json.loads(body)[0]["jobQueueStatus"]["pendingRequests"]
    return pending


def test_requests_join_between_two_steps(begin: Ask, poll: Poll) -> None:
    long = begin("steps", name="long", steps="8", step_s="0.1")
    poll(lambda: "long" in steps_so_far(begin), "it has begun")
    short = begin("steps", name="short", steps="2")
    assert short.result()[2].startswith(b"1 {'body': bytearray(b'x')} {'content-type': ''}\n")
    assert not long.done()
    pieces = long.result()[2].decode().splitlines()
    assert pieces[1:] == [f"{number} {{}} None" for number in range(2, 9)]
    assert "long+short long+short" in steps_so_far(begin)


def steps_so_far(begin: Ask) -> str:
    text = begin("steps", name="look", way="steps-so-far", steps="1").result()[2].decode()
    return text


def test_a_client_that_leaves_is_in_no_further_step(server: Any, begin: Ask, poll: Poll) -> None:
    headers = {"name": "leaver", "steps": "100000", "step-s": "0.02"}

    def steps_of_leaver() -> int:
        return steps_so_far(begin).count("leaver")

    leave(server, "steps", headers, lambda: poll(steps_of_leaver, "it has begun"))
    poll(lambda: steps_of_leaver() == steps_of_leaver(), "its steps end")


def test_a_sequence_of_streams_ends_with_its_handler(begin: Ask) -> None:
    for number, sequence in enumerate("abcdef"):
        answer = begin("sequence_steps", x_sequence=sequence, way="ends", steps="1").result()
        assert answer[0] == 200, number


def test_streams_of_one_sequence_run_together(begin: Ask) -> None:
    first = begin("sequence_steps", x_sequence="s", name="first", steps="10", step_s="0.05")
    second = begin("sequence_steps", x_sequence="s", name="second", steps="2")
    assert second.result()[0] == 200
    assert not first.done()
    assert first.result()[2].count(b"\n") == 10


def test_coroutines_run_side_by_side_and_fail_alone(server: Any, begin: Ask, poll: Poll) -> None:
    before = told(server, "taking")
    slow = [begin("coroutines", take_s="1.5") for _ in range(4)]
    poll(lambda: told(server, "taking") == before + 4, "all are at work")
    assert begin("coroutines", way="raises").result()[0] == 503
    assert begin("coroutines", way="streams").result()[2] == b"0 1 2 last"
    assert not any(one.done() for one in slow)
    at_work = sorted(json.loads(one.result()[2])["at work"] for one in slow)
    assert at_work == [1, 2, 3, 4]


def test_a_client_that_leaves_cancels_its_coroutine(server: Any, begin: Ask, poll: Poll) -> None:
    before = told(server, "taking"), told(server, "cancelled")
    staying = begin("coroutines", take_s="3")

    def both_begin() -> None:
        poll(lambda: told(server, "taking") == before[0] + 2, "both are at work")

    leave(server, "coroutines", {"take-s": "60"}, both_begin)
    poll(lambda: told(server, "cancelled") == before[1] + 1, "it is cancelled")
    assert staying.result()[0] == 200


def test_coroutines_may_have_batches(begin: Ask) -> None:
    # TorchServe answers none of these.
    pair = [begin("coroutine_pairs", way="streams") for _ in range(2)]
    assert [one.result()[2] for one in pair] == [b"0 1 2 last"] * 2


def test_an_async_worker_always_has_a_ticket(begin: Ask) -> None:
    many = [begin("coroutine_ticket", take_s="0.5") for _ in range(6)]
    assert [one.result()[0] for one in many] == [200] * 6


def test_coroutines_under_way_are_answered_when_their_worker_dies_or_leaves(
    server_factory: Callable[..., Any], tmp_path: Path, poll: Poll
) -> None:
    # TorchServe leaves them without an answer when it dies, and the model without a worker.
    build_archives(tmp_path / "store", ["coroutine_ticket"])
    logs = {"LOG_LOCATION": str(tmp_path)}
    server = server_factory(["coroutine_ticket.mar"], tmp_path / "store", env=logs)
    server.model_log = tmp_path / "model_log.log"
    server.wait_until_ready("coroutine_ticket")

    with asking(server) as begin:
        doomed = [begin("coroutine_ticket", take_s="60") for _ in range(2)]
        poll(lambda: told(server, "taking") == 2, "they are at work")
        (worker,) = server.workers("coroutine_ticket")
        os.kill(worker["pid"], signal.SIGKILL)
        for one in doomed:
            status, _, body = one.result()
            assert (status, json.loads(body)["message"]) == (507, "Worker died.")
        server.wait_until_ready("coroutine_ticket")
        scale(server, 2)
        under_way = [begin("coroutine_ticket", take_s="2") for _ in range(4)]
        poll(lambda: told(server, "taking") == 6, "they are at work, two with each")
        scale(server, 1)
        assert [one.result()[0] for one in under_way] == [200] * 4


def scale(server: Any, workers: int) -> None:
    path = f"/models/coroutine_ticket?min_worker={workers}&max_worker={workers}&synchronous=true"
    assert server.request("PUT", path, port="management")[0] == 200


def test_sequences_without_an_end_are_refused(server: Any) -> None:
    # TorchServe registers such a model, and answers each request with 500.
    status, _, body = server.request("POST", "/models?url=endless_sequences.mar", port="management")
    assert status == 400
    assert b"sequenceBatching, which needs sequenceMaxIdleMSec above 0" in body
