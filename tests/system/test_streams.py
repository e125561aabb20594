"""Streams and clients that leave, over real sockets: nobody else notices, nothing is left."""

import contextlib
import http.client
import json
import os
import signal
import socket
import struct
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

# A request's JSON body orders `pieces` of `bytes` each. With `gate` the handler waits for that
# file behind the first piece; it answers with the names of all requests that it has seen.
HANDLER = """
import os, time
from ts.handler_utils.utils import send_intermediate_predict_response

SEEN = []

def handle(data, context):
    if data is None:
        return
    orders = [row["body"] for row in data]
    SEEN.extend(order["name"] for order in orders)
    for number in range(max(order.get("pieces", 0) for order in orders)):
        pieces = [f"{number} ".ljust(order.get("bytes", 1)) for order in orders]
        send_intermediate_predict_response(pieces, context.request_ids, "more", 200, context)
        if number == 0:
            wait_for(orders[0])
    if not orders[0].get("pieces"):
        wait_for(orders[0])
    return [" ".join(SEEN) for _ in data]

def wait_for(order):
    while "gate" in order and not os.path.exists(order["gate"]):
        time.sleep(0.01)
"""
LATENCY = "ts_inference_latency_microseconds"
CONFIG = "minWorkers: 1\nmaxWorkers: 1\nmaxBatchDelay: 3000\nbatchSize: "


class Client:
    """One request on one connection."""

    def __init__(self, server: Any, model: str, **order: Any) -> None:
        address = server.inference.removeprefix("http://")
        self.connection = http.client.HTTPConnection(address, timeout=60)
        self.ask(model, **order)

    def ask(self, model: str, **order: Any) -> None:
        headers = {"Content-Type": "application/json"}
        self.connection.request("POST", f"/predictions/{model}", json.dumps(order), headers)

    def answer(self) -> http.client.HTTPResponse:
        return self.connection.getresponse()

    def leave(self) -> None:
        """Close the connection by a reset, as a killed client does."""
        assert self.connection.sock is not None
        linger = struct.pack("ii", 1, 0)
        self.connection.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        self.connection.close()


Connect = Callable[..., Client]
Factory = Callable[..., Any]
Poll = Callable[..., Any]


@pytest.fixture
def connect() -> Iterator[Connect]:
    """Clients whose connections are closed at the end."""
    with contextlib.ExitStack() as stack:

        def connect_one(server: Any, model: str, **order: Any) -> Client:
            client = Client(server, model, **order)
            stack.callback(client.connection.close)
            return client

        yield connect_one


@pytest.fixture
def server(server_factory: Factory, tmp_path: Path, poll: Poll) -> Iterator[Any]:
    """Serves `single` and `pair`; at the end it holds as many descriptors as at the start."""
    store = tmp_path / "store"
    store.mkdir()
    for name, batch_size in (("single", 1), ("pair", 2)):
        model = {"modelName": name, "handler": "h.py", "configFile": "c.yaml"}
        with zipfile.ZipFile(store / f"{name}.mar", "w") as archive:
            archive.writestr("h.py", HANDLER)
            archive.writestr("c.yaml", f"{CONFIG}{batch_size}\n")
            archive.writestr("MAR-INF/MANIFEST.json", json.dumps({"model": model}))
    config = {"metrics_mode": "prometheus"}
    server = server_factory(models=["single.mar", "pair.mar"], store=store, config=config)
    server.wait_until_ready("single", "pair")
    process = psutil.Process(server.pid)
    before = process.num_fds()
    workers = {worker["pid"] for name in ("single", "pair") for worker in server.workers(name)}
    yield server
    after = {worker["pid"] for name in ("single", "pair") for worker in server.workers(name)}
    assert after == workers, "a worker died"
    poll(lambda: process.num_fds() <= before, "descriptors are let go of", 10)


def counted(server: Any, metric: str) -> float:
    """The sum of a metric over its labels."""
    _, _, text = server.request("GET", f"/metrics?name[]={metric}", port="metrics")
    lines = [line for line in text.decode().splitlines() if not line.startswith("#")]
    return sum(float(line.rpartition(" ")[2]) for line in lines)


def accepted(server: Any) -> float:
    return counted(server, "ts_inference_requests_total")


def connections(server: Any) -> int:
    """Clients that the server still has on its inference port."""
    port = int(server.inference.rpartition(":")[2])
    return sum(
        one.laddr.port == port and one.status == psutil.CONN_ESTABLISHED
        for one in psutil.Process(server.pid).net_connections("tcp")
    )


def test_a_queued_request_whose_client_left_never_reaches_a_worker(
    server: Any, connect: Connect, tmp_path: Path, poll: Poll
) -> None:
    gate = tmp_path / "gate"
    busy = connect(server, "single", name="busy", gate=str(gate))
    leaving = [connect(server, "single", name=f"leaving{number}") for number in range(3)]
    staying = connect(server, "single", name="staying")
    poll(lambda: accepted(server) == 5, "all requests are queued")
    for client in leaving:
        client.leave()
    poll(lambda: connections(server) == 2, "the server knows who left")
    gate.touch()
    assert busy.answer().read() == b"busy"
    assert staying.answer().read() == b"busy staying"


def test_a_client_that_leaves_its_batch_is_not_in_it(
    server: Any, connect: Connect, poll: Poll
) -> None:
    leaving = connect(server, "pair", name="leaving")
    poll(lambda: accepted(server) == 1, "a batch is being assembled")
    leaving.leave()
    poll(lambda: connections(server) == 0, "the server knows who left")
    staying = connect(server, "pair", name="staying")
    assert staying.answer().read() == b"staying"


def test_a_client_that_leaves_in_mid_stream_leaves_the_others_alone(
    server: Any, connect: Connect, tmp_path: Path, poll: Poll
) -> None:
    gate = tmp_path / "gate"
    order = {"pieces": 100, "bytes": 10_000, "gate": str(gate)}
    clients = [connect(server, "pair", name=name, **order) for name in ("one", "two")]
    answers = [client.answer() for client in clients]
    assert [answer.read(2) for answer in answers] == [b"0 ", b"0 "]
    answers[0].close()
    clients[0].leave()
    poll(lambda: connections(server) == 1, "the server knows who left")
    gate.touch()
    rest = answers[1].read()
    assert rest.startswith(b" " * 9_998 + b"1 ")
    assert len(rest) - len(b"one two") == 100 * 10_000 - 2


def test_all_clients_may_leave_in_mid_stream(
    server: Any, connect: Connect, tmp_path: Path, poll: Poll
) -> None:
    gate = tmp_path / "gate"
    order = {"pieces": 3, "gate": str(gate)}
    clients = [connect(server, "pair", name=name, **order) for name in ("one", "two")]
    for client in clients:
        answer = client.answer()
        assert answer.read(2) == b"0 "
        answer.close()
        client.leave()
    poll(lambda: connections(server) == 0, "the server knows who left")
    gate.touch()
    next_one = connect(server, "pair", name="three")
    assert next_one.answer().read().endswith(b"three")


def test_a_client_that_does_not_read_is_cut_from_its_batch(server: Any, connect: Connect) -> None:
    order = {"pieces": 150, "bytes": 1_000_000}
    deaf = connect(server, "pair", name="deaf", **order)
    reading = connect(server, "pair", name="reading", **order)
    before = psutil.Process(server.pid).memory_info().rss
    answer = reading.answer()
    size = 0
    most = 0
    while piece := answer.read(1_000_000):
        size += len(piece)
        most = max(most, psutil.Process(server.pid).memory_info().rss - before)
    assert size > 150_000_000
    # 64 MiB wait for the one who does not read, at most; and some for the one who does.
    assert most < 140 << 20
    response = deaf.answer()
    with pytest.raises((http.client.IncompleteRead, ConnectionResetError)):
        response.read()
    server.wait_for_lines("stream cut, ClientTooSlow")


def test_a_stream_leaves_its_connection_usable(server: Any, connect: Connect) -> None:
    client = connect(server, "single", name="one", pieces=2)
    answer = client.answer()
    assert answer.getheader("transfer-encoding") == "chunked"
    assert answer.getheader("ts_stream_next") == "true"
    assert answer.read() == b"0 1 one"
    client.ask("single", name="two")
    answer = client.answer()
    assert answer.getheader("content-length") == "7"
    assert answer.read() == b"one two"


def test_the_access_line_is_that_of_the_first_piece_the_latency_that_of_the_last(
    server: Any, connect: Connect, tmp_path: Path, poll: Poll
) -> None:
    gate = tmp_path / "gate"
    client = connect(server, "single", name="one", pieces=1, gate=str(gate))
    answer = client.answer()
    poll(lambda: '"POST /predictions/single HTTP/1.1" 200' in server.log_text(), "access line")
    assert counted(server, LATENCY) == 0
    gate.touch()
    assert answer.read() == b"0 one"
    poll(lambda: counted(server, LATENCY) > 0, "the latency is counted")


def test_a_stop_lets_a_stream_end(
    server_factory: Factory,
    server: Any,
    connect: Connect,
    tmp_path: Path,
    poll: Poll,
) -> None:
    second = server_factory(models=["single.mar"], store=tmp_path / "store")
    second.wait_until_ready("single")
    gate = tmp_path / "gate"
    client = connect(second, "single", name="one", pieces=3, gate=str(gate))
    answer = client.answer()
    assert answer.read(2) == b"0 "
    os.kill(second.pid, signal.SIGTERM)
    poll(lambda: is_refused(second), "the stop has begun")
    gate.touch()
    assert answer.read() == b"1 2 one"
    assert second.process.wait(30) == 0


def is_refused(server: Any) -> bool:
    host, _, port = server.inference.removeprefix("http://").partition(":")
    try:
        socket.create_connection((host, int(port)), timeout=5).close()
    except ConnectionRefusedError:
        return True
    return False
