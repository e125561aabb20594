"""Three client stacks, as people use them, that find nothing to change.

requests with multipart, curl with chunked uploads, httpx with 64 connections: each asks our
server and, where it is there, the real TorchServe, and must get the same from both.
"""

import asyncio
import json
import shutil
import subprocess
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest
import requests
from reference import Bases, as_parameters, real_torchserve

from conformance.archives import build_archives

CONNECTIONS = 64
REQUESTS_EACH = 4
MEGABYTE = b"0123456789abcdef" * (1 << 16)
# What differs between two requests whoever answers them.
OF_ONE_REQUEST = {"request_id", "request_ids"}
OF_ONE_HEADER = {"Host", "host", "Content-Type", "content-type"}


@pytest.fixture(scope="module")
def ours(
    shared_server_factory: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory
) -> Bases:
    store = tmp_path_factory.mktemp("store")
    build_archives(store, ("echo", "streams"))
    server = shared_server_factory(models=["echo=echo.mar", "streams=streams.mar"], store=store)
    server.wait_until_ready("echo", "streams")
    return Bases(server.inference, server.management, server.metrics)


@pytest.fixture(scope="module")
def theirs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bases]:
    archives = ("echo", "streams")
    home = tmp_path_factory.mktemp("reference")
    with real_torchserve(archives, ("echo.mar", "streams.mar"), home) as bases:
        yield bases


@pytest.fixture(params=as_parameters(), scope="module")
def servers(request: pytest.FixtureRequest, ours: Bases) -> list[Bases]:
    return [ours, request.getfixturevalue("theirs")] if request.param else [ours]


def seen(answer: bytes) -> Any:
    """What the handler saw, without what is of one request only."""
    echoed = {
        name: value for name, value in json.loads(answer).items() if name not in OF_ONE_REQUEST
    }
    headers = echoed["headers"]
    echoed["headers"] = {n: v for n, v in headers.items() if n not in OF_ONE_HEADER}
    return echoed


def the_same_of_all(answers: list[Any]) -> Any:
    assert answers
    assert all(answer == answers[0] for answer in answers), answers
    return answers[0]


# -- requests --------------------------------------------------------------------------------


def test_requests_with_multipart(servers: list[Bases]) -> None:
    def ask(bases: Bases) -> Any:
        with requests.Session() as session:
            answers = [
                session.post(
                    f"{bases.inference}/predictions/echo",
                    files={
                        "data": ("kitten.jpg", MEGABYTE, "image/jpeg"),
                        "more": ("notes.txt", b"some notes", "text/plain"),
                        "config": ("c.json", b'{"a": [1, 2]}', "application/json"),
                    },
                    data={"field": "value", "umlaut": "ü"},
                    timeout=60,
                ),
                session.post(f"{bases.inference}/predictions/echo", json={"a": 1}, timeout=60),
                session.post(f"{bases.inference}/predictions/echo", data={"a": "1"}, timeout=60),
                session.put(f"{bases.inference}/predictions/echo/1.0", data=b"raw", timeout=60),
                session.post(
                    f"{bases.inference}/predictions/echo",
                    data=(piece for piece in (b"one ", b"two ", b"three")),
                    timeout=60,
                ),
                session.get(f"{bases.inference}/predictions/echo", timeout=60),
            ]
        assert [answer.status_code for answer in answers] == [200] * len(answers)
        return [seen(answer.content) for answer in answers]

    multipart, of_json, form, raw, chunked, empty = the_same_of_all([ask(one) for one in servers])
    row = multipart["row"]
    assert row["data"] == {"type": "bytearray", "value": MEGABYTE.decode()}
    assert row["more"] == {"type": "str", "value": "some notes"}
    assert row["config"] == {"type": "dict", "value": {"a": [1, 2]}}
    assert row["field"] == {"type": "bytearray", "value": "value"}
    assert row["umlaut"]["value"].encode("latin-1").decode() == "ü"
    assert of_json["row"] == {"body": {"type": "dict", "value": {"a": 1}}}
    assert form["row"] == {"a": {"type": "bytearray", "value": "1"}}
    assert raw["row"]["body"]["value"] == "raw"
    assert chunked["row"]["body"]["value"] == "one two three"
    assert empty["row"]["body"]["value"] == ""


def test_requests_reads_a_stream(servers: list[Bases]) -> None:
    def ask(bases: Bases) -> Any:
        url = f"{bases.inference}/predictions/streams/1.0/headers"
        with requests.post(url, data=b"x", stream=True, timeout=60) as answer:
            pieces = b"".join(answer.iter_content(chunk_size=None))
            return answer.status_code, answer.headers["content-type"], pieces

    assert the_same_of_all([ask(one) for one in servers]) == (
        200,
        "text/event-stream",
        b"one two three",
    )


def test_requests_manages_a_model(servers: list[Bases]) -> None:
    def ask(bases: Bases) -> Any:
        models = f"{bases.management}/models"
        with requests.Session() as session:
            answers = [
                session.post(models, params={"url": "echo.mar", "model_name": "other"}, timeout=60),
                session.post(models, json={"url": "echo.mar", "model_name": "other"}, timeout=60),
                session.put(
                    f"{models}/other", params={"min_worker": 1, "synchronous": True}, timeout=60
                ),
                session.put(f"{models}/other/1.0/set-default", timeout=60),
                session.get(models, timeout=60),
                session.delete(f"{models}/other", timeout=60),
                session.delete(f"{models}/other", timeout=60),
            ]
        return [(answer.status_code, answer.json()) for answer in answers]

    answers = the_same_of_all([ask(one) for one in servers])
    assert [status for status, _ in answers] == [200, 409, 200, 200, 200, 200, 404]


# -- curl ------------------------------------------------------------------------------------


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
@pytest.mark.parametrize("size", [0, 5, 3 * len(MEGABYTE)], ids=["empty", "small", "3 MB"])
def test_curl_with_chunked_uploads(servers: list[Bases], size: int) -> None:
    """`-T -` sends what it reads, in chunks, and with Expect: 100-continue where it is much."""
    content = (MEGABYTE * 3)[:size]

    def ask(bases: Bases) -> Any:
        command = ["curl", "-sS", "-i", "-T", "-", f"{bases.inference}/predictions/echo"]
        ended = subprocess.run(command, input=content, capture_output=True, timeout=60, check=True)
        head, _, body = ended.stdout.rpartition(b"\r\n\r\n")
        return head.splitlines()[0], b"100 Continue" in head, seen(body)

    _, _, echoed = the_same_of_all([ask(one) for one in servers])
    assert echoed["row"]["body"] == {"type": "bytearray", "value": content.decode()}


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
def test_curl_with_a_chunked_upload_that_is_too_large(servers: list[Bases]) -> None:
    def ask(bases: Bases) -> Any:
        command = ["curl", "-sS", "-o", "-", "-w", "%{http_code}", "-T", "-"]
        command += [f"{bases.inference}/predictions/echo"]
        ended = subprocess.run(
            command, input=MEGABYTE * 7, capture_output=True, timeout=60, check=False
        )
        return ended.stdout

    assert the_same_of_all([ask(one) for one in servers]) == b"413"


# -- httpx -----------------------------------------------------------------------------------


def test_httpx_with_64_connections(servers: list[Bases]) -> None:
    """Each is used again and again, none is lost, and nobody gets another's answer."""

    async def ask(bases: Bases) -> Any:
        opened = 0

        async def count(event: str, _: Any) -> None:
            nonlocal opened
            opened += event == "connection.connect_tcp.complete"

        async def client_of(client: httpx.AsyncClient, number: int) -> set[int]:
            statuses = set()
            for turn in range(REQUESTS_EACH):
                text = f"client {number}, turn {turn}"
                answer = await client.post(
                    f"{bases.inference}/predictions/echo",
                    content=text.encode(),
                    headers={"Content-Type": "text/plain"},
                    extensions={"trace": count},
                )
                statuses.add(answer.status_code)
                assert answer.json()["row"]["body"] == {"type": "str", "value": text}
                assert answer.headers["connection"] == "keep-alive"
            return statuses

        # By itself httpx lets go of a connection after five seconds of nothing.
        limits = httpx.Limits(
            max_connections=CONNECTIONS,
            max_keepalive_connections=CONNECTIONS,
            keepalive_expiry=None,
        )
        async with httpx.AsyncClient(limits=limits, timeout=60) as client:
            statuses = await asyncio.gather(
                *(client_of(client, number) for number in range(CONNECTIONS))
            )
        return set.union(*statuses), opened

    answers = the_same_of_all([asyncio.run(ask(one)) for one in servers])
    assert answers == ({200}, CONNECTIONS)
