"""Calls an ASGI application without a server, so that paths arrive exactly as written."""

import asyncio
import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote

import pytest


@dataclass
class Answer:
    status: int
    reason: str | None
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


def ask(
    app: Any,
    method: str,
    target: str,
    body: bytes = b"",
    headers: dict[str, str] | None = None,
) -> Answer:
    """One request, answered in an event loop of its own."""
    return asyncio.run(ask_async(app, method, target, body, headers))


async def ask_async(
    app: Any,
    method: str,
    target: str,
    body: bytes = b"",
    headers: dict[str, str] | None = None,
) -> Answer:
    raw_path, _, query = target.partition("?")
    spelled = [(name.encode(), value.encode()) for name, value in (headers or {}).items()]
    scope = {
        "type": "http",
        "method": method,
        "path": unquote(raw_path),
        "raw_path": raw_path.encode(),
        "query_string": query.encode(),
        "headers": [(name.lower(), value) for name, value in spelled],
        "spelled_headers": spelled,
    }
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    await app(scope, receive, send)
    start, *rest = sent
    return Answer(
        start["status"],
        start.get("reason"),
        {name.decode().lower(): value.decode() for name, value in start["headers"]},
        b"".join(bytes(message["body"]) for message in rest),
    )


@pytest.fixture(name="ask")
def ask_fixture() -> Callable[..., Answer]:
    return ask


@pytest.fixture(name="ask_async")
def ask_async_fixture() -> Callable[..., Any]:
    return ask_async
